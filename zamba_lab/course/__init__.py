"""The course: lessons on hybrids with exercises whose checks say which mistake was made.

    check(number, function)     is an exercise solved, and if not, what is wrong with it?
    solution(number)            print a solution
    compare(prediction, value)  what was predicted beside what was measured
    beside(mine, theirs, ...)   a function of the learner's beside one of the library's, on the same arguments
    progress()                  which exercises are done

Files: desk.py (these). exercises.py checking.py running.py records.py: an exercise, its check, what is done. catalogue.py notebooks.py
texts/: from a lesson to its notebooks. grading.py command.py: submissions. pictures.py: drawings. inputs.py, and a file of exercises for
each lesson.
"""

from zamba_lab.lazy import lazy

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {"desk": "check solution compare beside", "records": "progress", "catalogue": "lessons lesson exercise", "notebooks": "notebook write"},
    modules="ablation capacity grading inputs pictures selection ssd_cost ssd_forms",
)
