"""Named sets of clips: only a stated rule leaves a seed out."""

from wanedit.sprites.sets import Clip, batches, first_clips, linear, unseen_pair


def test_clips_are_consecutive_seeds_that_obey_the_rule():
    chosen, every = first_clips(5, 17, linear), first_clips(40, 17)
    assert [clip.seed for clip in every] == list(range(40))
    assert [clip.seed for clip in chosen] == [clip.seed for clip in every if linear(clip.scene)][:5]
    assert sum(map(len, batches(every, 64 * 64 * 17))) == 40
    assert isinstance(chosen[0], Clip)
    validation = first_clips(40, 17, split="validation")
    assert validation != every
    assert not any(unseen_pair(clip.scene) for clip in validation)
