"""Guides and results, frame by frame."""

from __future__ import annotations

from playwright.sync_api import expect
from stage import FRAMES, Actor
from visit import Visit


def test_result_and_performer_are_in_step(visit: Visit, actor: Actor) -> None:
    """Both show the very frame that is asked for, however it is asked for, and are at most one frame apart while they play."""
    key = visit.sign_in()
    job = visit.live.made(key, "Noon")
    visit.open(f"jobs/{job}")
    frame = visit.page.get_by_label("Frame", exact=True)
    expect(frame).to_be_visible()
    for i in (0, 1, 7, 13, 12, FRAMES - 1, 3):
        shown(visit, i)
        visit.sees(result=i, driver=i)
    visit.page.keyboard.press("l")
    expect(frame).to_have_value("13")
    visit.page.keyboard.press("ArrowLeft")
    expect(frame).to_have_value("12")
    visit.sees(result=12, driver=12)
    shown(visit, 0)
    visit.button("Play").click()
    apart = []
    for _ in range(6):
        visit.page.wait_for_timeout(120)
        now = visit.numbers()
        apart.append(abs(now["result"] - now["driver"]))
    visit.button("Pause").click()
    visit.page.wait_for_timeout(400)
    now = visit.numbers()
    assert now["result"] == now["driver"]
    assert int(frame.input_value()) == now["result"]
    assert sorted(apart)[len(apart) // 2] <= 1, apart


def test_what_changes_beside_it_stops_no_video(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    visit.open(f"jobs/{visit.live.made(key, 'Noon')}")
    shown(visit, 0)
    visit.button("Play").click()
    expect(visit.button("Pause")).to_be_visible()
    visit.page.get_by_label("Seed").press_sequentially("12345", delay=40)
    visit.page.locator("wa-compare").evaluate("async (view) => { await view.renew(); await view.loaded(); }")
    expect(visit.button("Pause")).to_be_visible()
    visit.page.wait_for_function("!document.querySelector('wa-player video').paused")


def test_wipe_alone_and_contact_sheet(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    visit.open(f"jobs/{visit.live.made(key, 'Noon')}")
    visit.button("Wipe").click()
    visit.page.get_by_label("Divider").fill("25")
    veil = visit.page.locator(".veil")
    expect(veil).to_have_css("clip-path", "inset(0px 0px 0px 25%)")
    shown(visit, 9)
    visit.sees(result=9, driver=9)
    visit.button("Result alone").click()
    expect(visit.page.locator("video")).to_have_count(1)
    visit.button("Contact sheet").click()
    expect(visit.page.get_by_alt_text("Contact sheet")).to_be_visible()


def test_two_seeds_are_compared_in_step(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    first, second = visit.live.made(key, "Noon"), visit.live.made(key, "Dusk", generate={"seed": 3})
    visit.open(f"jobs/{first}")
    visit.page.get_by_label("Compare with").select_option(second)
    expect(visit.page.get_by_text("Dusk, seed 3").last).to_be_visible()
    expect(visit.page.locator("video[data-track=other]")).to_be_visible()
    shown(visit, 17)
    visit.sees(result=17, other=17)
    assert f"with={second}" in visit.page.url


def test_one_segment_is_redrawn(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "Noon")
    visit.open(f"jobs/{job}")
    visit.page.get_by_label("Segment").select_option("2")
    visit.page.get_by_label("Seed").fill("6")
    visit.button("Redraw").click()
    expect(visit.page.get_by_text("Redrawn segment", exact=True)).to_be_visible()
    expect(visit.page.get_by_text("Noon, redrawn segment, seed 6").first).to_be_visible()
    with visit.live.http(key) as client:
        made = client.get("/v1/jobs", params={"kind": "redraw"}).json()["data"][0]
        asked = client.get(f"/v1/jobs/{made['id']}").json()["submission"]
    assert (asked["parent"], asked["segment"], asked["generate"]) == (job, 2, {"seed": 6})


def test_a_result_is_finished_anew_and_wiped_against_the_first(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "Noon", output={"audio": False})
    visit.open(f"jobs/{job}")
    form = visit.page.locator("wa-finishing")
    form.get_by_label("Size").select_option("1080p")
    form.get_by_label("Frames a second").select_option("30")
    form.get_by_role("button", name="Finish").click()
    expect(visit.page.locator(".veil")).to_be_visible()
    with visit.live.http(key) as client:
        made = client.get("/v1/jobs", params={"kind": "finish"}).json()["data"][0]
        made = client.get(f"/v1/jobs/{made['id']}").json()
    wanted = {"audio": False, "upscale": "1080p", "fps_out": "30", "codec": "h264", "upscale_style": "filmed"}
    assert made["submission"]["output"] == wanted
    assert made["submission"]["parent"] == job
    assert f"jobs/{made['id']}?with={job}" in visit.page.url
    shown(visit, 11)
    visit.sees(result=11, other=11)
    assert visit.faults() == []


def test_guides_are_checked_before_a_gpu_is_used(visit: Visit, actor: Actor) -> None:
    key = visit.sign_in()
    job = visit.live.made(key, "gaps", kind="preprocess", mode="replacement")
    visit.open(f"guides/{job}")
    expect(visit.page.get_by_text("Nobody was found in 5 of 30 frames.")).to_be_visible()
    expect(visit.page.locator(".marks rect")).to_have_count(2)
    shown(visit, 4)
    visit.sees(driver=4, pose=4, face=4, mask=4)
    visit.button("Show frame 21").click()
    expect(visit.page.get_by_label("Frame", exact=True)).to_have_value("20")
    expect(visit.page.locator(".stage.empty")).to_be_visible()
    visit.button("Skeleton over clip").click()
    visit.sees(driver=20, pose=20)
    visit.button("Go on: make the video").click()
    expect(visit.page.get_by_role("link", name="Download")).to_be_visible()
    visit.open(f"guides/{job}")
    expect(visit.page.get_by_role("heading", name="Videos made from these guides")).to_be_visible()
    visit.page.get_by_role("link", name="Back: change the inputs").click()
    expect(visit.page.get_by_role("radio", name="Replacement")).to_be_checked()


def test_a_finished_job_is_deleted_with_its_files(visit: Visit, actor: Actor) -> None:
    visit.refusals = True  # a piece of a video may be on its way
    key = visit.sign_in()
    job = visit.live.made(key, "Noon")
    visit.open(f"jobs/{job}")
    visit.button("Delete").click()
    visit.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(visit.page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    assert visit.live.row(job) is None


def shown(visit: Visit, frame: int) -> None:
    """Have the player show a frame, and wait until all videos do."""
    visit.page.locator("wa-player").evaluate("(player, frame) => player.show(frame)", frame)
