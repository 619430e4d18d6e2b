"""Sound beside the pictures, measured by the tone that it carries: each second of the source has its own."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from tests.video.scenes import panning
from wanedit.errors import InputError
from wanedit.video.encode import write_video
from wanedit.video.formats import FORMATS
from wanedit.video.sound import left_out, sound_file, sound_of
from wanedit.video.source import read_source

RATE, FPS, TONE = 48_000, 24, 440.0
SOUNDING = [ending for ending in FORMATS if ending != ".gif"]


def opened(*arguments: Any, **named: Any) -> Any:
    """PyAV's types do not tell what a mode opens, nor what a stream is of."""
    return av.open(*arguments, **named)


def film(path, tracks=("aac",), seconds=2.0, sound_from=0.0, sound_seconds=None, codec="libx264"):
    """Two seconds of pictures; each track is silent but for 0.1 s of its tone from every half second on."""
    with opened(path, "w") as out:
        video = out.add_stream(codec, rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        heard = [out.add_stream(name, rate=RATE) for name in tracks]
        for k, track in enumerate(heard):
            track.layout, track.metadata["language"] = "mono", ("eng", "deu")[k]
        for index, frame in enumerate(panning(round(seconds * FPS), 48, 64)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        for k, track in enumerate(heard):
            time = np.arange(round((sound_seconds or seconds) * RATE)) / RATE + sound_from
            wave = np.sin(2 * np.pi * TONE * (k + 1) * time) * (time % 0.5 < 0.1) * 0.5
            for at in range(0, len(wave), 1024):
                piece = wave[None, at : at + 1024].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
                frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
                frame.pts = at + round(sound_from * RATE)
                out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


def packets(path, track=0):
    with opened(path) as container:
        streams = container.streams.audio
        return [bytes(p) for p in container.demux(streams[track]) if p.size] if streams else []


def heard(path, track=0):
    """Samples from the time of the first picture on, and its rate."""
    with opened(path) as container:
        first = next(container.decode(video=0))
        begin = first.pts * first.time_base
    with opened(path) as container:
        stream, samples = container.streams.audio[track], []
        for frame in container.decode(stream):
            if not samples:
                gap = round((frame.pts * frame.time_base - begin) * frame.sample_rate)
                samples.append(np.zeros(max(gap, 0)))
            wave = frame.to_ndarray().astype(float)
            samples.append(wave.reshape(frame.layout.nb_channels, -1, order="F")[0])
        return np.concatenate(samples), stream.rate


def bursts(path, track=0):
    """Seconds at which the tone sets in."""
    wave, rate = heard(path, track)
    loud = np.abs(wave) > 0.15 * np.abs(wave).max()
    on = np.flatnonzero(loud)
    return [
        float(on[0] / rate),
        *(float(b / rate) for a, b in zip(on, on[1:], strict=False) if b - a > rate / 5),
    ]


def edited(source, path, **stretch):
    clip = read_source(source, **stretch)
    kind = FORMATS[path.suffix]
    last = clip.start + len(clip.frames) == clip.total
    sound, notes = sound_of(source, clip.clock, clip.fps, kind, last)
    write_video(path, clip.frames, clip.fps, sound=sound)
    return notes


@pytest.mark.parametrize("ending", [".mkv", ".mov"])
def test_pcm_is_cut_to_the_sample_however_long_its_packets_are(tmp_path, ending):
    source = tmp_path / "source.mkv"
    with opened(source, "w") as out:
        video, track = out.add_stream("libx264", rate=FPS), out.add_stream("pcm_s16le", rate=RATE)
        video.width, video.height, video.pix_fmt, track.layout = 64, 48, "yuv420p", "stereo"
        for index, frame in enumerate(panning(48, 48, 64)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        counted = np.arange(2 * RATE, dtype=np.int32).astype(np.int16)
        for at in range(0, 2 * RATE, 36_000):  # 0.75 s
            piece = np.repeat(counted[None, at : at + 36_000], 2, axis=1)
            sounding = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
            sounding.sample_rate, sounding.time_base, sounding.pts = RATE, Fraction(1, RATE), at
            out.mux(track.encode(sounding))
    edited(source, tmp_path / f"out{ending}", start=12, num_frames=24)
    wave, _ = heard(tmp_path / f"out{ending}")
    np.testing.assert_array_equal(wave, counted[RATE // 2 : RATE // 2 + RATE])


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_all_of_a_film_keeps_every_packet(tmp_path, ending):
    source = film(tmp_path / "source.mp4", ("aac", "aac"))
    assert edited(source, tmp_path / f"out{ending}") == []
    for track in (0, 1):
        assert packets(tmp_path / f"out{ending}", track) == packets(source, track)
        assert bursts(tmp_path / f"out{ending}", track) == pytest.approx([0, 0.5, 1, 1.5], abs=0.003)
    with opened(tmp_path / f"out{ending}") as container:
        assert container.duration == pytest.approx(2e6, abs=25_000)
        languages = [track.metadata.get("language") for track in container.streams.audio]
        assert languages == (["eng", "deu"] if ending == ".mp4" else ["eng", None])


@pytest.mark.parametrize("ending", SOUNDING)
@pytest.mark.parametrize("made", ["source.mp4", "source.mkv", "source.ts", "source.mov"])
def test_a_stretch_carries_its_sound_in_time(tmp_path, ending, made):
    source = film(tmp_path / made)
    notes = edited(source, tmp_path / f"out{ending}", start=8, num_frames=24)
    # From 1/3 s to 4/3 s: the tone sets in at 0.5 s and 1 s of the source.
    assert bursts(tmp_path / f"out{ending}") == pytest.approx([1 / 6, 2 / 3], abs=0.006)
    wave, rate = heard(tmp_path / f"out{ending}")
    assert len(wave) / rate == pytest.approx(1, abs=0.03)
    copied = set(packets(tmp_path / f"out{ending}"))
    # A transport stream wraps its packets in headers that mp4 and Matroska have no use for.
    assert made == "source.ts" or (copied <= set(packets(source))) == (ending != ".webm")
    assert bool(notes) == (ending == ".webm")


@pytest.mark.parametrize(
    ("codec", "ending"), [("pcm_s16le", ".mp4"), ("flac", ".mov"), ("mp2", ".mp4"), ("flac", ".webm")]
)
def test_what_a_film_does_not_hold_is_encoded_anew_and_said(tmp_path, codec, ending):
    source = film(tmp_path / "source.mkv", (codec,))
    notes = edited(source, tmp_path / f"out{ending}", start=8, num_frames=24)
    assert len(notes) == 1
    assert notes[0].startswith(f"sound in {codec} is encoded anew as")
    assert bursts(tmp_path / f"out{ending}") == pytest.approx([1 / 6, 2 / 3], abs=0.006)


@pytest.mark.parametrize(
    ("codec", "ending"),
    [("pcm_s16le", ".mov"), ("flac", ".mp4"), ("libopus", ".webm"), ("libopus", ".mp4"), ("flac", ".mkv")],
)
def test_other_codecs_are_copied_too(tmp_path, codec, ending):
    source = film(tmp_path / "source.mkv", (codec,))
    assert edited(source, tmp_path / f"out{ending}", start=8, num_frames=24) == []
    assert bursts(tmp_path / f"out{ending}") == pytest.approx([1 / 6, 2 / 3], abs=0.006)
    assert b"".join(packets(tmp_path / f"out{ending}")) in b"".join(packets(source))


def test_sound_that_begins_later_or_ends_sooner_or_later(tmp_path):
    late = film(tmp_path / "late.mp4", sound_from=0.7, sound_seconds=0.6)
    assert edited(late, tmp_path / "a.mp4") == []
    assert bursts(tmp_path / "a.mp4") == pytest.approx([1.0], abs=0.006)
    long = film(tmp_path / "long.mp4", sound_seconds=3.0)
    assert edited(long, tmp_path / "b.mp4") == ["1.00 s of sound after the last frame are left out"]
    with opened(tmp_path / "b.mp4") as container:
        assert container.duration == pytest.approx(2e6, abs=25_000)
    assert edited(long, tmp_path / "c.mp4", num_frames=12) == []


def test_what_is_shown_at_another_time_has_no_sound_and_says_so(tmp_path):
    source = film(tmp_path / "source.mp4")
    clip = read_source(source, fps=12)
    sound, (note,) = sound_of(source, clip.clock, clip.fps, FORMATS[".mp4"])
    assert sound is None
    assert "at 12 fps frames are shown up to 2 s off their time, and sound is never re-timed" in note
    sound, (note,) = sound_of(source, clip.clock, Fraction(24), FORMATS[".gif"])
    assert sound is None
    assert note == "the source's sound is left out: a film in gif has none"
    sound, (note,) = sound_of(source, None, Fraction(24), FORMATS[".mp4"])
    assert sound is None
    assert "does not say when" in note
    film(tmp_path / "mute.mp4", ())
    assert sound_of(tmp_path / "mute.mp4", clip.clock, Fraction(24), FORMATS[".mp4"]) == (None, [])


def test_subtitles_and_chapters_are_left_out_in_so_many_words(tmp_path):
    plain = film(tmp_path / "plain.mkv")
    assert left_out(plain) == []
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    words, held = opened(tmp_path / "words.srt"), tmp_path / "held.mkv"
    with opened(plain) as source, opened(held, "w") as out:
        pictures = source.streams.video[0]
        copied = out.add_stream_from_template(pictures)
        for language in ("eng", "deu"):
            track = out.add_stream_from_template(words.streams.subtitles[0])
            track.metadata["language"] = language
        half = {"time_base": Fraction(1), "metadata": {}}
        out.set_chapters([{"id": k, "start": k, "end": k + 1, **half} for k in range(2)])
        for packet in source.demux(pictures):
            if packet.size:
                packet.stream = copied
                out.mux(packet)
    assert left_out(held) == [
        "the source's subtitles (eng, deu) are left out",
        "the source's chapters (2) are left out",
    ]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("a.mp3", "libmp3lame"),
        ("a.m4a", "aac"),
        ("a.flac", "flac"),
        ("a.ogg", "libopus"),
    ],
)
def test_a_file_of_sound_is_laid_under_a_film(tmp_path, name, codec):
    with opened(tmp_path / name, "w") as out:
        track = out.add_stream(codec, rate=RATE)
        track.layout = "mono"
        time = np.arange(RATE) / RATE
        wave = np.sin(2 * np.pi * TONE * time) * (time % 0.5 < 0.1) * 0.5
        frame = av.AudioFrame.from_ndarray(
            (wave[None] * 32767).astype(np.int16), format="s16p", layout="mono"
        )
        frame.sample_rate, frame.pts = RATE, 0
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    sound, notes = sound_file(tmp_path / name, Fraction(2), FORMATS[".mp4"])
    write_video(tmp_path / "a.mp4", panning(48), FPS, sound=sound)
    assert bursts(tmp_path / "a.mp4") == pytest.approx([0, 0.5], abs=0.003)
    assert f"{name} lasts 1.0" in notes[-1]
    assert notes[-1].endswith("the film 2.00 s: silence follows")
    with pytest.raises(InputError, match="a film in gif has no sound"):
        sound_file(tmp_path / name, Fraction(2), FORMATS[".gif"])


def test_a_file_without_sound_is_no_audio(tmp_path):
    film(tmp_path / "mute.mp4", ())
    with pytest.raises(InputError, match="holds no sound"):
        sound_file(tmp_path / "mute.mp4", Fraction(1), FORMATS[".mp4"])
    (tmp_path / "a.mp3").write_text("no sound")
    with pytest.raises(InputError, match="not a readable file of sound or video"):
        sound_file(tmp_path / "a.mp3", Fraction(1), FORMATS[".mp4"])


def noise(path, tracks, rate=RATE, layout="mono", sound_from=0):
    """A second of sound alone, in these codecs."""
    with opened(path, "w") as out:
        for codec in tracks:
            out.add_stream(codec, rate=rate).layout = layout
        for track in out.streams.audio:
            channels = track.layout.nb_channels
            time = np.arange(rate) / rate
            wave = np.sin(2 * np.pi * TONE * time) * 0.5
            wave = np.stack([wave * (k + 1) / channels for k in range(channels)]).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(sound_from * rate)
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


def unknown(path, codec=b"A_FLAC"):
    """The Matroska file with its tracks of one codec renamed to one that nobody knows."""
    content = path.read_bytes()
    assert codec in content
    path.write_bytes(content.replace(codec, b"A_NONE"))
    return path


def test_a_track_that_cannot_be_decoded_is_left_out_and_said(tmp_path):
    some = unknown(film(tmp_path / "some.mkv", ("aac", "flac")))
    lost = "1 of 2 tracks of sound cannot be decoded here: left out"
    assert edited(some, tmp_path / "some.mp4") == [lost]
    assert packets(tmp_path / "some.mp4") == packets(some)
    none = unknown(film(tmp_path / "none.mkv", ("flac",)))
    assert edited(none, tmp_path / "none.mp4") == [lost.replace("1 of 2", "1 of 1")]
    with opened(tmp_path / "none.mp4") as container:
        assert not container.streams.audio
    with pytest.raises(InputError, match="1 of 1 tracks of sound cannot be decoded"):
        sound_file(none, Fraction(1), FORMATS[".mp4"])
    sound, notes = sound_file(some, Fraction(2), FORMATS[".mkv"])
    assert notes == [lost]
    write_video(tmp_path / "laid.mkv", panning(48), FPS, sound=sound)
    assert bursts(tmp_path / "laid.mkv")[0] == pytest.approx(0, abs=0.025)


@pytest.mark.parametrize("name", ["late.mka", "late.m4a", "late.ts"])
def test_a_file_of_sound_begins_where_its_clock_does(tmp_path, name):
    path = noise(tmp_path / name, ["aac"], sound_from=10)
    sound, notes = sound_file(path, Fraction(1), FORMATS[".mp4"])
    assert notes == []
    write_video(tmp_path / "a.mp4", panning(24), FPS, sound=sound)
    assert bursts(tmp_path / "a.mp4") == pytest.approx([0], abs=0.025)
    (note,) = sound_file(path, Fraction(3), FORMATS[".mp4"])[1]
    assert note.startswith(f"{name} lasts 1.0")


@pytest.mark.parametrize(("rate", "copied"), [(44_100, True), (22_050, True), (8_000, False)])
@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_mp3_is_copied_as_far_as_mp4_has_it(tmp_path, rate, copied, ending):
    path = noise(tmp_path / "a.mp3", ["libmp3lame"], rate)
    sound, notes = sound_file(path, Fraction(1), FORMATS[ending])
    write_video(tmp_path / f"a{ending}", panning(24), FPS, sound=sound)
    assert (notes == []) == (copied or ending == ".mov")
    wave, found = heard(tmp_path / f"a{ending}")
    assert len(wave) / found == pytest.approx(1, abs=0.16)


@pytest.mark.parametrize(
    ("codec", "layout", "ending", "kept"),
    [
        ("pcm_s16le", "5.1", ".mp4", "5.1"),
        ("pcm_s16le", "5.1(side)", ".webm", "5.1"),
        ("flac", "quad", ".webm", "quad"),
        ("pcm_s16le", "5.0", ".mp4", "5.0"),
        ("flac", "2.1", ".webm", "stereo"),
    ],
)
def test_channels_are_kept_where_sound_is_encoded_anew(tmp_path, codec, layout, ending, kept):
    path = noise(tmp_path / "a.mkv", [codec], layout=layout)
    sound, notes = sound_file(path, Fraction(1), FORMATS[ending])
    assert [note for note in notes if "stereo" in note] == (
        ["its 3 channels are mixed down to stereo: libopus does not have them"] if kept == "stereo" else []
    )
    write_video(tmp_path / f"a{ending}", panning(24), FPS, sound=sound)
    with opened(tmp_path / f"a{ending}") as container:
        assert container.streams.audio[0].layout.name == kept
        loud = max(abs(frame.to_ndarray()).max() for frame in container.decode(audio=0))
    assert loud > 0.2
