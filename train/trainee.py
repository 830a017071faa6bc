"""All that a run trains: the student, and the bridges between its features and a teacher's.

trainee = Trainee(student, bridges)  # optimizer, buckets and checkpoints see both; artifacts the student alone
"""

from torch import nn

from models.student import Student


class Trainee(nn.Module):
    def __init__(self, student: Student, bridges: nn.ModuleList) -> None:
        super().__init__()
        self.student, self.bridges = student, bridges
