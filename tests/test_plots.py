import numpy as np

from prompt_tuning import plots


def pixels(path):
  """The picture as an array; matplotlib reads PNG by itself."""
  from matplotlib import image

  return image.imread(path)


def test_a_curve_of_other_numbers_is_another_picture(tmp_path):
  def rows(scale):
    return [
      {"step": s, "prompt": p, "loss": scale / s, "token_accuracy": 0.5}
      for s in (1, 2, 3)
      for p in ("a", "b")
    ] + [{"step": 3, "prompt": "a", "accuracy": 50.0}]

  one = pixels(plots.curves(rows(1.0), tmp_path / "one.png"))
  same = pixels(plots.curves(rows(1.0), tmp_path / "same.png"))
  other = pixels(plots.curves(rows(2.0), tmp_path / "other.png"))
  np.testing.assert_array_equal(one, same)
  assert one.shape[1] > 2 * one.shape[0]  # two panels side by side
  assert (one != other).any()


def test_scores_are_drawn_with_a_gap_where_one_is_missing(tmp_path):
  row = {"task": "t", "chance": 50.0, "by_hand": 60.0, "model_tuning": None}
  path = plots.scores([row], tmp_path / "scores.png")
  full = plots.scores([{**row, "model_tuning": 90.0}], tmp_path / "full.png")
  assert (pixels(path) != pixels(full)).any()
