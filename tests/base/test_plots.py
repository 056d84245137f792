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


def test_a_prompt_has_one_colour_in_every_panel(tmp_path):
  rows = [{"step": 1, "prompt": p, "loss": 0.5} for p in ("a", "b")]
  rows += [{"step": s, "prompt": "b", "f1": 10.0 * s} for s in (1, 2)]
  picture = pixels(plots.curves(rows, tmp_path / "curves.png"))[..., :3]
  right = picture[:, picture.shape[1] // 2 :]
  first, second = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)
  assert np.isclose(right * 255, second, atol=1).all(axis=-1).any()
  assert not np.isclose(right * 255, first, atol=1).all(axis=-1).any()


def test_scores_are_drawn_with_a_gap_where_one_is_missing(tmp_path):
  row = {"task": "t", "chance": 50.0, "by_hand": 60.0, "model_tuning": None}
  path = plots.scores([row], tmp_path / "scores.png")
  full = plots.scores([{**row, "model_tuning": 90.0}], tmp_path / "full.png")
  assert (pixels(path) != pixels(full)).any()


def test_lines_and_points_show_means_and_spreads(tmp_path):
  def drawn(draw, spread):
    means = {1.0: (60.0, spread), 20.0: (90.0, spread)}
    if draw is plots.lines:
      path = draw({"boolq": means}, "positions", tmp_path / "l.png")
    else:
      path = draw({"boolq": {"short": means[1.0]}}, tmp_path / "b.png")
    return pixels(path)

  for draw in (plots.lines, plots.points):
    assert (drawn(draw, 0.0) != drawn(draw, 5.0)).any()


def test_a_matrix_shows_what_is_known(tmp_path):
  def drawn(value):
    values = np.array([[1.0, value], [value, np.nan]])
    return pixels(plots.matrix(["a", "b"], values, tmp_path / "m.png"))

  assert (drawn(0.1) != drawn(0.9)).any()
