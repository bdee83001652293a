"""mobile-avatar animate"""

from pathlib import Path

import click

from mobile_avatar.assets import shipped
from mobile_avatar.cli.common import force_option, json_option, print_json, say, tracker_option

DEMO_SECONDS = 6
DEMO_FPS = 25


@click.command()
@click.argument("avatar", required=False, type=click.Path(path_type=Path))
@click.option("--demo", is_flag=True, help="The built-in track: turning, talking, blinking (the default).")
@click.option("--keypoints", type=click.Path(path_type=Path), help="A .npy file of (T, 136) keypoints in [-1, 1].")
@click.option("--video", type=click.Path(path_type=Path), help="A video whose face drives the avatar.")
@click.option(
    "--fps", type=click.FloatRange(1, 120), help="Playing speed in frames per second; default: the video's, else 25."
)
@click.option("--landmarks", is_flag=True, help="Show the driving landmarks beside the avatar.")
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="An .mp4 or .gif file.")
@tracker_option
@force_option
@json_option
def command(avatar, demo, keypoints, video, fps, landmarks, output, tracker_models, force, as_json):
    """Play AVATAR (default: the one that ships with the package) and write a contact sheet beside the film."""
    from mobile_avatar.files import check_output
    from mobile_avatar.players import load_player
    from mobile_avatar.rendering.animate import animate, check_film
    from mobile_avatar.rendering.tracks import demo_track

    if sum(map(bool, (demo, keypoints, video))) > 1:
        raise click.UsageError("pass one of --demo, --keypoints and --video")
    check_film(output, fps)
    sheet = output.with_name(output.name + ".png")
    for path in (output, sheet):
        check_output(path, force, inputs=(avatar, keypoints, video))
    player = load_player(avatar or shipped("default.avatar"))
    lost = 0
    if keypoints:
        from mobile_avatar.keypoints.contract import read_keypoints

        track = read_keypoints(keypoints)
        drivers = player.from_keypoints(track)
    elif video:
        from mobile_avatar.keypoints.models import tracker_models as find_models
        from mobile_avatar.keypoints.video import track_video

        tracked = track_video(video, find_models(tracker_models), show_progress=True)
        track, fps, lost = tracked.keypoints, fps or tracked.fps, len(tracked.missing)
        drivers = player.from_video(video, tracked)
        if lost:
            say(f"{video}: no face in {lost} of {len(track)} frames; the last pose is held there")
    else:
        rate = fps or DEMO_FPS
        track = demo_track(round(DEMO_SECONDS * rate), rate, neutral=player.neutral())
        drivers = player.from_keypoints(track)

    animate(player.draw, track, output, fps or DEMO_FPS, drivers=drivers, landmarks=landmarks, contact_sheet=sheet)
    if as_json:
        print_json(
            {"film": str(output), "contact_sheet": str(sheet), "frames": len(track), "frames_without_face": lost}
        )
    else:
        click.echo(f"{output}\n{sheet}")
