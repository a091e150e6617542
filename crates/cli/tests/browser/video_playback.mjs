// Plays a video in a browser and compares what it shows with the frames the video was made of.
//
//   CHROMIUM=… node video_playback.mjs VIDEO FRAMES WIDTH HEIGHT FPS PSNR
//
// FRAMES is a file with all frames as RGB, 8 bits a channel, one after the other. Every frame is sought and drawn on a canvas, and then
// the video is played from its beginning to its end. One line of JSON says what was seen; the exit code says whether it was
// what was asked for.
//
// PSNR is how many decibels every frame must have at least, of what a video keeps: the brightness of each pixel, and the colour of
// each square of four. For pictures that is close to the ratio in RGB, which is told too; frames whose colours are
// noise from pixel to pixel have little of it in RGB, however well they are encoded.

import assert from 'node:assert/strict';
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/** Serves a page with the video, and the video with ranges, as browsers want it for seeking. */
async function serve(video) {
  const { size } = statSync(video);
  const server = createServer((request, response) => {
    if (request.url !== '/video.mp4') {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end('<!doctype html><link rel="icon" href="data:,"><video src="/video.mp4" muted preload="auto"></video>');
      return;
    }
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const start = Number(range?.[1] ?? 0);
    const end = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    const headers = { 'content-type': 'video/mp4', 'content-length': end - start + 1, 'accept-ranges': 'bytes' };
    if (range) headers['content-range'] = `bytes ${start}-${end}/${size}`;
    response.writeHead(range ? 206 : 200, headers);
    createReadStream(video, { start, end }).on('error', () => response.destroy()).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

/** In the page: what the video says of itself once it can be shown. */
function opened() {
  const video = document.querySelector('video');
  return new Promise((resolve, reject) => {
    const told = () => resolve({ width: video.videoWidth, height: video.videoHeight, duration: video.duration });
    video.addEventListener('error', () => reject(new Error(`the browser cannot play it: ${video.error.message}`)));
    if (video.error) reject(new Error(`the browser cannot play it: ${video.error.message}`));
    else if (video.readyState >= 2) told();
    else video.addEventListener('loadeddata', told, { once: true });
  });
}

/** In the page: the frame at a time, as RGBA in base64. */
async function drawn(time) {
  const video = document.querySelector('video');
  await new Promise((resolve) => {
    video.addEventListener('seeked', resolve, { once: true });
    video.currentTime = time;
  });
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  let text = '';
  for (let at = 0; at < data.length; at += 0x8000) text += String.fromCharCode(...data.subarray(at, at + 0x8000));
  return btoa(text);
}

/** In the page: plays from beginning to end, and gives where it ended and how many frames were shown or dropped. */
async function played() {
  const video = document.querySelector('video');
  video.currentTime = 0;
  const ended = new Promise((resolve) => video.addEventListener('ended', resolve, { once: true }));
  await video.play();
  await ended;
  return { end: video.currentTime, frames: video.getVideoPlaybackQuality().totalVideoFrames };
}

const decibels = (squares, count) => 10 * Math.log10(255 ** 2 / (squares / count));

/** BT.709's brightness and two differences of colour, all in 0..255 around 0. */
function components(pixels, at) {
  const [r, g, b] = [pixels[at], pixels[at + 1], pixels[at + 2]];
  const y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return [y, (b - y) / 1.8556, (r - y) / 1.5748];
}

/** Decibels between a frame in RGB and one in RGBA: of all channels, and of what a video keeps. */
function psnr(rgb, rgba, width, height) {
  const squares = { all: 0, brightness: 0, colour: 0 };
  for (let row = 0; row < height; row += 2) {
    for (let column = 0; column < width; column += 2) {
      const colour = [0, 0];
      for (const at of [0, 1, width, width + 1].map((offset) => row * width + column + offset)) {
        for (let channel = 0; channel < 3; channel++) squares.all += (rgb[3 * at + channel] - rgba[4 * at + channel]) ** 2;
        const [source, shown] = [components(rgb, 3 * at), components(rgba, 4 * at)];
        squares.brightness += (source[0] - shown[0]) ** 2;
        colour.forEach((_, kind) => (colour[kind] += (source[kind + 1] - shown[kind + 1]) / 4));
      }
      squares.colour += colour[0] ** 2 + colour[1] ** 2;
    }
  }
  const pixels = width * height;
  return { rgb: decibels(squares.all, 3 * pixels), kept: decibels(squares.brightness + squares.colour, 1.5 * pixels) };
}

/** Plays `video` and checks it; `frames` is a buffer with all frames in RGB. Gives what was seen. */
export async function playVideo({ video, frames, width, height, fps, least }) {
  const count = frames.length / (3 * width * height);
  assert.ok(Number.isInteger(count) && count > 0, `${frames.length} bytes are no frames of ${width}x${height}`);
  const server = await serve(video);
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(30_000);
    const trouble = [];
    page.on('console', (message) => message.type() === 'error' && trouble.push(message.text()));
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    const seen = await page.evaluate(opened);
    assert.deepEqual([seen.width, seen.height], [width, height]);
    assert.ok(Math.abs(seen.duration - count / fps) < 1e-3, `${seen.duration} s for ${count} frames at ${fps}`);
    const likeness = [];
    for (let frame = 0; frame < count; frame++) {
      const shown = Buffer.from(await page.evaluate(drawn, (frame + 0.5) / fps), 'base64');
      const source = frames.subarray(frame * 3 * width * height, (frame + 1) * 3 * width * height);
      likeness.push(psnr(source, shown, width, height));
    }
    const worst = (kind) => Math.min(...likeness.map((decibels) => decibels[kind]));
    assert.ok(worst('kept') >= least, `not every frame has ${least} dB: ${likeness.map(({ kept }) => kept.toFixed(1))}`);
    const { end } = await page.evaluate(played);
    assert.ok(Math.abs(end - seen.duration) < 1e-3, `it ended at ${end} s of ${seen.duration} s`);
    assert.deepEqual(trouble, []);
    return { ...seen, frames: count, psnr: worst('kept'), psnr_rgb: worst('rgb') };
  } finally {
    await browser.close();
    server.close();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [video, frames, ...numbers] = process.argv.slice(2);
  const [width, height, fps, least] = numbers.map(Number);
  const seen = await playVideo({ video, frames: readFileSync(frames), width, height, fps, least });
  console.log(JSON.stringify(seen));
}
