"""Rebuild examples/clips from the Debian package sonic-pi-samples, byte for byte.

    apt-get download sonic-pi-samples
    dpkg -x sonic-pi-samples_*.deb unpacked
    python examples/build_clips.py unpacked

Provenance, licence and the processing are in examples/README.md.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path

import numpy as np
import soundfile

MAX_DURATION_S = 2.0
FADE_S = 0.010

CLIPS = {
    "ambience": """ambi_choir ambi_dark_woosh ambi_drone ambi_glass_hum ambi_glass_rub
        ambi_haunted_hum ambi_lunar_land ambi_piano ambi_soft_buzz ambi_swoosh""",
    "bass": """bass_dnb_f bass_drop_c bass_hard_c bass_hit_c bass_thick_c bass_trance_c bass_voxy_c
        bass_voxy_hit_c bass_woodsy_c""",
    "cymbal": """drum_cymbal_closed drum_cymbal_hard drum_cymbal_open drum_cymbal_pedal
        drum_cymbal_soft drum_splash_hard drum_splash_soft elec_cymbal""",
    "electronic": """elec_beep elec_bell elec_blip elec_blip2 elec_blup elec_bong elec_chime
        elec_ping elec_plip elec_triangle elec_twang elec_twip elec_wood""",
    "kick": """bd_808 bd_ada bd_boom bd_fat bd_gas bd_haus bd_klub bd_pure bd_sone bd_tek bd_zome
        bd_zum drum_bass_hard drum_bass_soft drum_heavy_kick elec_hollow_kick elec_soft_kick""",
    "snare": """drum_snare_hard drum_snare_soft elec_filt_snare elec_hi_snare elec_lo_snare
        elec_mid_snare elec_snare sn_dolf sn_dub sn_zome""",
    "tabla": """tabla_dhec tabla_ghe1 tabla_ghe2 tabla_na tabla_na_o tabla_na_s tabla_tas1
        tabla_tas2 tabla_te1 tabla_te2 tabla_tun1 tabla_tun2""",
    "tom": """drum_tom_hi_hard drum_tom_hi_soft drum_tom_lo_hard drum_tom_lo_soft
        drum_tom_mid_hard drum_tom_mid_soft elec_fuzz_tom""",
}


def public_domain(copyright_file: Path) -> set[str]:
    """The names of the samples that the package's copyright file puts under CC0 one by one."""
    paragraphs = copyright_file.read_text(encoding="utf-8").split("\n\n")
    names = set()
    for paragraph in paragraphs:
        files = re.match(r"Files: etc/samples/(\S+)\.flac$", paragraph, re.MULTILINE)
        if files and re.search(r"^License: CC0$", paragraph, re.MULTILINE):
            names.add(files[1])
    return names


def clip(source: Path) -> tuple[np.ndarray, int]:
    """The first two seconds as (N,) int16, faded out where cut, and the sample rate (Hz)."""
    samples, sample_rate = soundfile.read(source, dtype="int16", always_2d=True)
    mono = samples.astype(np.float64).mean(axis=1)
    length = round(MAX_DURATION_S * sample_rate)
    if len(mono) > length:
        fade = round(FADE_S * sample_rate)
        mono = mono[:length]
        mono[-fade:] *= np.linspace(1.0, 0.0, fade)
    return np.rint(mono).astype(np.int16), sample_rate


def flac(samples: np.ndarray, sample_rate: int) -> bytes:
    """The samples as a 16-bit FLAC file, compressed as far as the format goes."""
    buffer = io.BytesIO()
    soundfile.write(
        buffer, samples, sample_rate, format="FLAC", subtype="PCM_16", compression_level=1.0
    )
    return buffer.getvalue()


def main() -> None:
    """Read the arguments, write the clips (or compare them) and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="folder that the package was unpacked into")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(__file__).resolve().parent / "clips"
    )
    parser.add_argument("--check", action="store_true", help="compare with the output, write none")
    arguments = parser.parse_args()
    share = arguments.package / "usr" / "share"
    copyright_file = share / "doc" / "sonic-pi-samples" / "copyright"
    if not copyright_file.is_file():
        sys.exit(f"{copyright_file}: not found; give the folder made by dpkg -x")
    free = public_domain(copyright_file)
    count = size = different = 0
    for label, names in CLIPS.items():
        for name in names.split():
            if name not in free:
                sys.exit(f"{name}: not under CC0 by itself in {copyright_file}")
            content = flac(*clip(share / "sonic-pi" / "samples" / f"{name}.flac"))
            target = arguments.output / label / f"{name}.flac"
            count, size = count + 1, size + len(content)
            if arguments.check:
                different += not target.is_file() or target.read_bytes() != content
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_suffix(".part")
            temporary.write_bytes(content)
            temporary.replace(target)
    print(f"{count} clips, {size / 1e6:.2f} MB, {arguments.output}")
    if different:
        sys.exit(f"{different} clips are missing or differ")


if __name__ == "__main__":
    main()
