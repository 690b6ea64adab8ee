import torch
from torch import nn
from torch.nn import functional as F

from tacit.methods.parts.queue import Queue
from tacit.methods.parts.teacher import follow, frozen_copy


def unit(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def test_the_queue_forgets_the_oldest_and_takes_a_remainder():
    queue = Queue(5, 2)
    start = queue.rows.clone()
    first, second = unit((1, 0), (0, 1), (1, 1)), unit((2, 1), (1, 2), (-1, 0))
    queue.put(first * 7)  # normalised inside
    assert torch.equal(queue.rows, start), "nothing moves before the optimiser's step"
    queue.flush()
    assert torch.allclose(queue.rows, torch.cat([first, start[3:]]))
    queue.put(second)
    queue.flush()  # rows 3, 4, then again 0
    assert torch.allclose(queue.rows, torch.cat([second[2:], first[1:], second[:2]]))


def test_accumulated_parts_enter_in_order_and_once():
    queue = Queue(4, 2)
    a, b = unit((1, 0)), unit((0, 1))
    queue.put(a)
    queue.put(b)
    queue.flush()
    assert torch.allclose(queue.rows[:2], torch.cat([a, b]))
    assert queue.cursor == 2
    queue.flush()
    assert queue.cursor == 2


def test_a_batch_longer_than_the_queue_leaves_its_last_rows():
    queue = Queue(3, 2)
    rows = unit((1, 0), (0, 1), (1, 1), (1, 2), (2, 1))
    queue.put(rows)
    queue.flush()
    assert queue.cursor == 5 % 3
    # rows 2, 3, 4 of the batch stand at their number modulo 3
    assert torch.allclose(queue.rows, rows[[3, 4, 2]])


def test_queue_starts_with_unit_vectors_independent_of_the_global_state():
    torch.manual_seed(0)
    first = Queue(50, 8).rows
    torch.manual_seed(1)
    assert torch.equal(first, Queue(50, 8).rows)
    assert torch.allclose(first.norm(dim=1), torch.ones(50))


def test_queue_is_saved():
    queue = Queue(4, 2)
    queue.put(unit((1, 0)))
    queue.flush()
    other = Queue(4, 2)
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.rows, queue.rows)
    assert other.cursor == 1


def test_a_teacher_follows_parameters_and_keeps_its_own_statistics():
    student = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    teacher = frozen_copy(student)
    before = teacher[0].weight.clone()
    with torch.no_grad():
        student[0].weight.add_(1.0)
        student[1].running_mean.add_(5.0)
    follow(teacher, student, 0.9)
    assert torch.allclose(teacher[0].weight, before + 0.1, atol=1e-6)
    assert torch.equal(teacher[1].running_mean, torch.zeros(2))
    assert not any(p.requires_grad for p in teacher.parameters())
