"""OpenAI's SDK: videos."""

import io
import unittest
import warnings

import openai

from common import KEY, KEYED_SERVER, SERVER, client

PROMPT = "a red circle"
QUICK = {"num_frames": 5, "num_inference_steps": 2, "seed": 7}


def create(call=client.videos.create, **settings):
    """A video of a fraction of a second's work."""
    extra = {**QUICK, **settings.pop("extra_body", {})}
    return call(**{"model": "wan", "prompt": PROMPT, "size": "48x32", **settings}, extra_body=extra)


class Videos(unittest.TestCase):
    def setUp(self):
        # The SDK calls its own service's videos deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)

    def test_create_and_poll_and_download(self):
        job = create()
        self.assertEqual((job.object, job.model, job.prompt, job.size), ("video", "wan", PROMPT, "48x32"))
        self.assertIn(job.status, ("queued", "in_progress"))
        self.assertEqual((job.seconds, job.num_frames, job.seed), ("0.3125", 5, 7))
        self.assertIsNone(job.completed_at)
        done = client.videos.poll(job.id)
        self.assertEqual((done.id, done.status, done.progress, done.error), (job.id, "completed", 100, None))
        content = client.videos.download_content(job.id).read()
        self.assertEqual((content[4:8], len(content)), (b"ftyp", done.bytes))
        picture = client.videos.download_content(job.id, variant="thumbnail").read()
        self.assertEqual((picture[:4], picture[8:12]), (b"RIFF", b"WEBP"))
        with self.assertRaises(openai.BadRequestError) as caught:
            client.videos.download_content(job.id, variant="spritesheet")
        self.assertEqual(caught.exception.param, "variant")
        again = create(client.videos.create_and_poll, seconds="0.3125", extra_body={"output_format": "gif"})
        self.assertEqual((again.status, again.frames_digest), ("completed", done.frames_digest))
        other = create(client.videos.create_and_poll, extra_body={"seed": 8})
        self.assertNotEqual(other.frames_digest, done.frames_digest)
        for video in (job, again, other):
            deleted = client.videos.delete(video.id)
            self.assertEqual((deleted.id, deleted.deleted, deleted.object), (video.id, True, "video.deleted"))
            with self.assertRaises(openai.NotFoundError):
                client.videos.retrieve(video.id)

    def test_lists_go_on_by_themselves(self):
        # The first keeps the others waiting.
        jobs = [create(extra_body={"num_inference_steps": 1000, "num_frames": 33}) for _ in range(5)]
        ids = [job.id for job in jobs]
        page = client.videos.list(limit=2)
        self.assertEqual(([video.id for video in page.data], page.has_more), (ids[:2:-1], True))
        self.assertEqual([video.id for video in client.videos.list(limit=2)], ids[::-1])
        self.assertEqual([video.id for video in client.videos.list(limit=3, order="asc")], ids)
        self.assertEqual([video.id for video in client.videos.list(after=ids[1])], [ids[0]])
        with self.assertRaises(openai.NotFoundError) as caught:
            client.videos.download_content(ids[4])
        self.assertEqual(caught.exception.code, "video_not_ready")
        for id in reversed(ids):
            client.videos.delete(id)
        self.assertEqual(list(client.videos.list()), [])

    def test_refusals(self):
        for settings, param in [
            ({"prompt": " "}, "prompt"),
            ({"size": "large"}, "size"),
            ({"seconds": "long"}, "seconds"),
            ({"model": "smollm2"}, "model"),
            ({"extra_body": {"bananas": 3}}, "bananas"),
            ({"input_reference": ("a.png", io.BytesIO(b"\x89PNG"), "image/png")}, "input_reference"),
            ({"extra_body": {"input_reference": {"file_id": "file-1"}}}, "input_reference"),
        ]:
            with self.assertRaises(openai.BadRequestError) as caught:
                create(**settings)
            self.assertEqual(caught.exception.param, param, caught.exception.message)
        with self.assertRaises(openai.NotFoundError) as caught:
            create(model="nobody")
        self.assertEqual(caught.exception.code, "model_not_found")

    def test_what_is_not_possible(self):
        # With retries: there is nothing to try again.
        retrying = openai.OpenAI(base_url=f"{SERVER}/v1", api_key="none")
        for call in [
            lambda: retrying.videos.remix("video_0", prompt=PROMPT),
            lambda: retrying.videos.edit(prompt=PROMPT, video=io.BytesIO(b"x")),
            lambda: retrying.videos.extend(prompt=PROMPT, seconds="4", video=io.BytesIO(b"x")),
            lambda: retrying.videos.create_character(name="x", video=io.BytesIO(b"x")),
            lambda: retrying.videos.get_character("c"),
        ]:
            with self.assertRaises(openai.InternalServerError) as caught:
                call()
            self.assertEqual((caught.exception.status_code, caught.exception.code), (501, "not_implemented"))

    def test_keys_and_models(self):
        kinds = {model.id: model.kind for model in client.models.list()}
        self.assertEqual(kinds["wan"], "video")
        with self.assertRaises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="wan", messages=[{"role": "user", "content": "x"}])
        self.assertEqual(caught.exception.param, "model")
        keyed = openai.OpenAI(base_url=f"{KEYED_SERVER}/v1", api_key=KEY, max_retries=0)
        self.assertEqual(list(keyed.videos.list()), [])


if __name__ == "__main__":
    unittest.main()
