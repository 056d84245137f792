import dataclasses

import numpy as np
import pytest
import tiny_t5
import toy_tasks

from prompt_tuning.prompts import analysis


def test_a_piece_is_its_own_nearest_neighbour_at_any_length():
  model = toy_tasks.model()
  ids = tiny_t5.vocabulary().encode("the cat sat")
  scales = np.linspace(0.1, 50, len(ids))[:, None]
  found = analysis.nearest_pieces(scales * model.embedding[ids], model, 3)
  for token, (first, *others) in zip(ids, found, strict=True):
    assert first.piece == tiny_t5.vocabulary().piece(token)
    assert first.cosine == pytest.approx(1)
    assert [n.cosine for n in others] == sorted(
      (n.cosine for n in others), reverse=True
    )


def test_rows_behind_the_pieces_are_no_neighbours():
  model = toy_tasks.model()
  last = model.embedding[-1:]
  pieces = tiny_t5.vocabulary().num_pieces
  found = analysis.nearest_pieces(last, model, 100)
  assert len(found[0]) == pieces
  assert found[0][0].cosine < 0.999


def test_a_model_without_vocabulary_has_no_words():
  bare = dataclasses.replace(toy_tasks.model(), vocabulary=None)
  with pytest.raises(ValueError, match="has no vocabulary"):
    analysis.nearest_pieces(tiny_t5.rows(2, 16), bare)


def test_no_neighbors_are_nothing_to_show():
  with pytest.raises(ValueError, match="0 nearest pieces .* ask for 1 or more"):
    analysis.nearest_pieces(tiny_t5.rows(2, 16), toy_tasks.model(), 0)


def row(*pieces):
  return [analysis.Neighbor(piece, 0.5) for piece in pieces]


def test_variants_of_one_word_are_a_cluster():
  technology = ("▁Technology", "▁technology", "▁Technologies", "▁the", "▁x")
  found = analysis.clusters(
    [row("▁a", "▁b", "▁c"), row(*technology), row("▁nap", "▁naples", "▁on")]
  )
  assert found == {1: ["Technology", "technology", "Technologies"]}
