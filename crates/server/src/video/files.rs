//! What lies on the disk, beside the database:
//!
//! ```text
//! DATABASE-videos.lock, FOLDER/.lock    held by the server that makes videos: one for a database, one for a folder
//! FOLDER/.owner                         the mark that the database has as well: they belong together
//! FOLDER/prompts/                       states of the last prompts
//! FOLDER/video_ID/state.safetensors     what is denoised so far
//! FOLDER/video_ID/latest.webp           the newest frame, while the job runs
//! FOLDER/video_ID/thumbnail.webp        the first frame
//! FOLDER/video_ID/video.mp4             or .apng, .gif: there when it is whole
//! ```
//!
//! Every file appears by a rename when it is whole; what has another name was left by a process that was killed.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image_webp::{ColorType, WebPEncoder};
use wushi_media::Format;

use super::VideoState;

const LOCK: &str = ".lock";
const PROMPTS: &str = "prompts";
const STATE: &str = "state.safetensors";
const LATEST: &str = "latest.webp";
const THUMBNAIL: &str = "thumbnail.webp";
/// What jobs' names begin with.
pub(super) const PREFIX: &str = "video_";
/// The longest side of a picture.
const LONGEST: usize = 512;

/// How long the locks of a server that takes them for a moment are waited for.
const MOMENT: Duration = Duration::from_secs(1);

/// The folder of all videos.
pub(super) struct Files {
    folder: PathBuf,
    /// Beside the database.
    lock: PathBuf,
    /// As long as the process lives, where it makes videos.
    held: Option<Held>,
}

/// While this lives, no other process makes videos with this database or in this folder.
pub(super) struct Held(#[expect(dead_code, reason = "closing a file unlocks it")] Vec<File>);

impl Files {
    /// The file with the mark.
    pub(super) const OWNER: &str = ".owner";

    /// The folder of a database's videos.
    pub(super) fn new(folder: &Path, database: &Path) -> Files {
        let mut lock = database.as_os_str().to_owned();
        lock.push("-videos.lock");
        Files { folder: folder.to_owned(), lock: lock.into(), held: None }
    }

    /// Makes the folder if it is not there and keeps others away as long as this lives; whether that can be.
    pub(super) fn take(&mut self) -> io::Result<bool> {
        make_folder(&self.folder)?;
        let begun = Instant::now();
        while self.held.is_none() {
            self.held = self.locked()?;
            if begun.elapsed() >= MOMENT {
                break;
            }
            if self.held.is_none() {
                std::thread::sleep(MOMENT / 20);
            }
        }
        Ok(self.held.is_some())
    }

    /// Keeps others away for a moment; `None` if one of them makes videos.
    pub(super) fn hold(&self) -> Option<Held> {
        match &self.held {
            Some(_) => Some(Held(Vec::new())),
            None => self.locked().unwrap_or_else(|error| {
                tracing::error!("{} or {}: {error}", self.lock.display(), self.folder.join(LOCK).display());
                None
            }),
        }
    }

    fn locked(&self) -> io::Result<Option<Held>> {
        let mut held = Vec::new();
        let there = self.folder.is_dir().then(|| self.folder.join(LOCK));
        for path in [self.lock.clone()].into_iter().chain(there) {
            match lock(&path)? {
                Some(file) => held.push(file),
                None => return Ok(None),
            }
        }
        Ok(Some(Held(held)))
    }

    /// The mark in the folder.
    pub(super) fn mark(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.folder.join(Files::OWNER)) {
            Ok(mark) => Ok(Some(mark.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Marks the folder; the mark is on the disk when this returns.
    pub(super) fn set_mark(&self, mark: &str) -> io::Result<()> {
        let part = self.folder.join(".owner.part");
        let mut file = File::create(&part)?;
        file.write_all(mark.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, self.folder.join(Files::OWNER))?;
        flush_folder(&self.folder)
    }

    /// Jobs that have something here.
    pub(super) fn jobs(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        entries(&self.folder).iter().map(name).filter(|name| is_id(name)).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where states of prompts are kept.
    pub(super) fn prompts(&self) -> PathBuf {
        self.folder.join(PROMPTS)
    }

    fn job(&self, id: &str) -> PathBuf {
        self.folder.join(id)
    }

    pub(super) fn state(&self, id: &str) -> PathBuf {
        self.job(id).join(STATE)
    }

    pub(super) fn video(&self, id: &str, format: Format) -> PathBuf {
        self.job(id).join(video_name(format))
    }

    pub(super) fn thumbnail(&self, id: &str) -> PathBuf {
        self.job(id).join(THUMBNAIL)
    }

    pub(super) fn latest(&self, id: &str) -> PathBuf {
        self.job(id).join(LATEST)
    }

    /// Makes the folder of a job.
    pub(super) fn prepare(&self, id: &str) -> io::Result<()> {
        make_folder(&self.job(id))
    }

    /// What was made of a job is on the disk under its names when this returns, whatever happens to the machine.
    pub(super) fn flush(&self, id: &str) -> io::Result<()> {
        flush_folder(&self.job(id))?;
        flush_folder(&self.folder)
    }

    /// Removes everything of a job.
    pub(super) fn remove(&self, id: &str) {
        let path = self.job(id);
        let removed = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => fs::remove_file(&path),
            removed => removed,
        };
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!("{}: {error}; it is removed at the next start", path.display());
        }
    }

    /// Removes what a job of this state has no use for.
    pub(super) fn settle(&self, id: &str, state: VideoState) {
        let needed = |name: &str| match state {
            VideoState::Queued | VideoState::InProgress => name == STATE,
            VideoState::Completed => name == THUMBNAIL || Format::ALL.iter().any(|f| video_name(*f) == name),
            // Hours of work, perhaps, which the same request finds.
            VideoState::Failed => name == STATE,
        };
        for path in entries(&self.job(id)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !needed(&name) {
                discard(&path);
            }
        }
        if state == VideoState::Failed && entries(&self.job(id)).is_empty() {
            self.remove(id);
        }
    }

    /// Removes what belongs to no job, and of each job what it has no use for; `state` says how a job stands, if it is
    /// there: `Some(None)` is left alone.
    pub(super) fn tidy(&self, state: impl Fn(&str) -> Option<Option<VideoState>>) {
        // Whatever else somebody keeps here is not ours.
        for name in self.jobs() {
            match state(&name) {
                Some(Some(state)) => self.settle(&name, state),
                Some(None) => {}
                None => {
                    tracing::info!("{}: removed, as no job has it", self.job(&name).display());
                    self.remove(&name);
                }
            }
        }
        for path in entries(&self.prompts()) {
            if path.extension().is_some_and(|ending| ending == "part") {
                discard(&path);
            }
        }
    }

    /// Bytes of everything.
    pub(super) fn all_bytes(&self) -> u64 {
        entries(&self.folder).iter().filter(|path| path.is_dir()).map(|path| bytes_below(path)).sum()
    }

    /// Bytes of a job's files.
    pub(super) fn bytes(&self, id: &str) -> u64 {
        bytes_below(&self.job(id))
    }

    /// Bytes of what a job has saved.
    pub(super) fn saved_bytes(&self, id: &str) -> u64 {
        fs::metadata(self.state(id)).map_or(0, |metadata| metadata.len())
    }

    /// Gives what one job has saved to another, which has saved nothing; whether there was anything.
    pub(super) fn pass_on(&self, from: &str, to: &str) -> io::Result<bool> {
        self.prepare(to)?;
        match fs::rename(self.state(from), self.state(to)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        self.flush(to)?;
        self.remove(from);
        Ok(true)
    }

    /// Bytes that the disk has left, if it says.
    pub(super) fn left(&self) -> Option<u64> {
        fs4::available_space(&self.folder).ok()
    }
}

/// Whether this is a job's name, and therefore safe as that of a folder.
pub(super) fn is_id(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// What the file of a video is called.
pub(super) fn video_name(format: Format) -> &'static str {
    match format {
        Format::Apng => "video.apng",
        Format::Gif => "video.gif",
        _ => "video.mp4",
    }
}

/// What a browser has to know of it.
pub(super) fn media_type(format: Format) -> &'static str {
    match format {
        Format::Apng => "image/apng",
        Format::Gif => "image/gif",
        _ => "video/mp4",
    }
}

/// Writes a picture of a frame `[H, W, 3]` in WebP, made smaller if it is large. `keep`: it is on the disk when this
/// returns.
pub(super) fn write_picture(path: &Path, rgb: &[u8], size: (usize, usize), keep: bool) -> io::Result<()> {
    let (small, width, height) = shrink(rgb, size);
    let mut bytes = Vec::new();
    let failed = |error: image_webp::EncodingError| io::Error::other(error.to_string());
    let sides = u32::try_from(width).and_then(|width| Ok((width, u32::try_from(height)?)));
    let (width, height) = sides.map_err(io::Error::other)?;
    WebPEncoder::new(&mut bytes).encode(&small, width, height, ColorType::Rgb8).map_err(failed)?;
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(&bytes)?;
    if keep {
        file.sync_all()?;
    }
    fs::rename(&part, path)
}

/// The frame with no side longer than [`LONGEST`]: each pixel is the mean of those in its place.
fn shrink(rgb: &[u8], (width, height): (usize, usize)) -> (Vec<u8>, usize, usize) {
    let longest = width.max(height);
    if longest <= LONGEST {
        return (rgb.to_vec(), width, height);
    }
    let (columns, rows) = ((width * LONGEST / longest).max(1), (height * LONGEST / longest).max(1));
    let mut small = Vec::with_capacity(3 * columns * rows);
    for row in 0..rows {
        let above = row * height / rows..(row + 1) * height / rows;
        for column in 0..columns {
            let beside = column * width / columns..(column + 1) * width / columns;
            let count = above.len() * beside.len();
            for channel in 0..3 {
                let pixels = above.clone().flat_map(|y| beside.clone().map(move |x| y * width + x));
                let sum: usize = pixels.map(|pixel| usize::from(rgb[3 * pixel + channel])).sum();
                small.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    (small, columns, rows)
}

/// `None` if another process has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// A folder that only this user may look into: it shows what people asked for.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Names in a folder outlive the machine's power as well, where folders can be flushed.
fn flush_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("{}: {error}", path.display());
    }
}

fn bytes_below(folder: &Path) -> u64 {
    entries(folder).iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "video_0123456789abcdef0123456789abcdef";
    const B: &str = "video_00000000000000000000000000000000";

    fn names(folder: &Path) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries(folder).iter().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn names_of_jobs() {
        assert!(is_id(A));
        for other in ["", "video_", "video_..", "video_0123456789ABCDEF0123456789ABCDEF", "prompts", &A[1..]]
        {
            assert!(!is_id(other), "{other}");
        }
    }

    /// A folder that this process makes videos in, and whether it may.
    fn taken(folder: &Path, place: &str, database: &str) -> (Files, bool) {
        let mut files = Files::new(&folder.join(place), &folder.join(database));
        let taken = files.take().unwrap();
        (files, taken)
    }

    #[test]
    fn one_process_makes_videos_in_a_folder_and_for_a_database() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("videos");
        let looking = Files::new(&place, &folder.path().join("one"));
        assert!(looking.hold().is_some() && !place.exists());
        let first = taken(folder.path(), "videos", "one");
        assert!(first.1 && first.0.hold().is_some());
        assert!(!taken(folder.path(), "videos", "two").1);
        assert!(!taken(folder.path(), "others", "one").1);
        assert!(looking.hold().is_none());
        assert!(taken(folder.path(), "others", "two").1);
        drop(first);
        assert!(looking.hold().is_some());
        assert!(taken(folder.path(), "videos", "one").1);
    }

    #[test]
    fn a_folder_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = taken(folder.path(), "videos", "one");
        assert_eq!(files.mark().unwrap(), None);
        files.set_mark("0123").unwrap();
        assert_eq!(files.mark().unwrap().as_deref(), Some("0123"));
        assert_eq!(names(files.folder()), [LOCK, Files::OWNER]);
    }

    #[test]
    fn what_is_saved_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = taken(folder.path(), "videos", "one");
        assert!(!files.pass_on(A, B).unwrap());
        files.prepare(A).unwrap();
        fs::write(files.state(A), "12345").unwrap();
        assert!(files.pass_on(A, B).unwrap());
        assert!(!files.job(A).exists());
        assert_eq!((files.bytes(A), files.bytes(B), files.jobs()), (0, 5, vec![B.to_owned()]));
    }

    #[test]
    fn what_nobody_needs_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = taken(folder.path(), "", "one");
        let all = [STATE, LATEST, THUMBNAIL, "video.gif", ".video.gif.Xy.part", "latest.part"];
        let fill = || {
            for id in [A, B] {
                files.prepare(id).unwrap();
                all.iter().for_each(|name| fs::write(files.job(id).join(name), "12345").unwrap());
            }
        };
        fs::create_dir_all(files.prompts()).unwrap();
        fs::write(files.prompts().join(".prompt-1.safetensors.7-1.part"), "").unwrap();
        fs::write(files.prompts().join("prompt-1.safetensors"), "123").unwrap();
        fs::create_dir_all(folder.path().join("mine")).unwrap();
        fill();
        assert_eq!(files.all_bytes(), 63);
        // What this program does not know is left alone.
        files.tidy(|_| Some(None));
        assert_eq!(files.all_bytes(), 63);
        files.tidy(|id| (id == A).then_some(Some(VideoState::InProgress)));
        assert_eq!(names(folder.path()), [LOCK, "mine", "one-videos.lock", PROMPTS, A]);
        assert_eq!(names(&files.job(A)), [STATE]);
        assert_eq!(names(&files.prompts()), ["prompt-1.safetensors"]);
        fill();
        files.tidy(|id| Some(Some(if id == A { VideoState::Completed } else { VideoState::Failed })));
        assert_eq!(names(&files.job(A)), [THUMBNAIL, "video.gif"]);
        assert_eq!(names(&files.job(B)), [STATE]);
        fs::remove_file(files.state(B)).unwrap();
        files.settle(B, VideoState::Failed);
        assert!(!files.job(B).exists());
        files.flush(A).unwrap();
        files.remove(A);
        files.remove(A);
        assert!(!files.job(A).exists());
    }

    #[test]
    fn pictures_are_small_and_right() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(THUMBNAIL);
        let (width, height) = (1300, 700);
        // Left half red, right half blue.
        let pixel = |x: usize| if x < width / 2 { [200, 0, 0] } else { [0, 0, 100] };
        let rgb: Vec<u8> = (0..height).flat_map(|_| (0..width).flat_map(pixel)).collect();
        write_picture(&path, &rgb, (width, height), true).unwrap();
        assert_eq!(names(folder.path()), [THUMBNAIL]);
        let file = io::BufReader::new(File::open(&path).unwrap());
        let mut decoder = image_webp::WebPDecoder::new(file).unwrap();
        assert_eq!(decoder.dimensions(), (512, 275));
        let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
        decoder.read_image(&mut pixels).unwrap();
        assert_eq!(pixels[..3], [200, 0, 0]);
        assert_eq!(pixels[pixels.len() - 3..], [0, 0, 100]);
        let tiny = [1, 2, 3, 4, 5, 6];
        assert_eq!(shrink(&tiny, (2, 1)), (tiny.to_vec(), 2, 1));
        // A strip stays one pixel high.
        assert_eq!(shrink(&[7; 3 * 2000], (2000, 1)), (vec![7; 3 * 512], 512, 1));
    }
}
