"""Where the runs of a comparison go."""

from cns_lightning.compare import environments


def test_runs_side_by_side_do_not_share_a_gpu_or_a_core() -> None:
    assert environments(0, gpus=3, cores=16) == [{"CUDA_VISIBLE_DEVICES": str(number)} for number in range(3)]
    assert environments(0, gpus=0, cores=2) == [{"OMP_NUM_THREADS": "1"}] * 2
    assert environments(2, gpus=0, cores=8) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert environments(1, gpus=0, cores=8) == [{}]
    assert environments(3, gpus=2, cores=8)[2] == {"CUDA_VISIBLE_DEVICES": "0"}
