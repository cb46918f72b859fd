"""Fifty kills at random moments; the plain tests have twenty of them."""

from test_train_checkpoint import end_with_the_same_losses


def test_killed_at_fifty_random_moments_runs_end_with_the_same_weights(tmp_path):
    end_with_the_same_losses(tmp_path, kills=50, seed=1)
