import pytest

from apps.core.room import MIB, Room, room_of

GIB = 1024 * MIB


@pytest.mark.parametrize("total", [24 * MIB, GIB, 4 * GIB, 5 * GIB, 100 * GIB])
class TestADisk:
    def test_as_eviction_leaves_it_is_not_full(self, total):
        kept = Room(total, 0).kept_free_bytes
        assert 0 < kept <= total / 8
        assert not Room(total, kept).is_full

    def test_that_a_fetch_has_used_up_is_full_before_it_is_full_to_the_last_byte(self, total):
        left = Room(total, 0).left_bytes
        assert left > 0
        assert Room(total, left).is_full


def test_of_a_usual_disk_half_a_gigabyte_is_kept_free():
    room = Room(100 * GIB, 0)
    assert (room.kept_free_bytes, room.left_bytes) == (512 * MIB, 64 * MIB)


def test_an_open_file_tells_it_as_its_folder_does(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        assert room_of(file.fileno()).total_bytes == room_of(tmp_path).total_bytes
