//! Where videos appear, what is left behind, and what is said when it cannot be done.

mod support;

use std::fs;
use std::path::Path;
use support::{frames, names, settings, write};
use wushi_media::{Encoder, Format, MediaError, Settings};

const NAMES: [(&str, Format); 4] =
    [("a.mp4", Format::Mp4), ("a.apng", Format::Apng), ("a.gif", Format::Gif), ("a", Format::PngDir)];

fn small() -> Settings {
    settings(32, 32, "16")
}

/// The error of beginning a video; it must be one line.
fn refused(path: &Path, format: Format) -> String {
    let error = Encoder::create(path, format, small()).expect_err("refused").to_string();
    assert!(!error.contains('\n'), "{error:?}");
    error
}

#[test]
fn nothing_appears_before_the_end() {
    for (name, format) in NAMES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        let mut encoder = Encoder::create(&path, format, small()).expect("begun");
        for frame in frames(&small(), 3) {
            encoder.push(&frame).expect("encoded");
            assert!(!path.exists());
        }
        let hidden = names(folder.path());
        assert!(hidden.iter().all(|name| name.starts_with('.') && name.ends_with(".part")), "{hidden:?}");
        let summary = encoder.finish().expect("finished");
        assert_eq!(names(folder.path()), [name]);
        assert_eq!((summary.path, summary.frames), (path, 3));
        assert!((summary.seconds - 3.0 / 16.0).abs() < 1e-12);
    }
}

#[test]
fn what_is_dropped_leaves_nothing_and_harms_nothing() {
    for (name, format) in NAMES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        for pushed in [0, 2] {
            let mut encoder = Encoder::create(&path, format, small()).expect("begun");
            frames(&small(), pushed).iter().for_each(|frame| encoder.push(frame).expect("encoded"));
            drop(encoder);
            assert!(names(folder.path()).is_empty(), "{format}");
        }
        write(&path, format, small(), &frames(&small(), 1)).expect("written");
        let read = || if path.is_dir() { fs::read(path.join("000001.png")) } else { fs::read(&path) };
        let before = read().expect("a file");
        let mut encoder = Encoder::create(&path, format, small()).expect("begun");
        encoder.push(&vec![9; 32 * 32 * 3]).expect("encoded");
        drop(encoder);
        assert_eq!(read().expect("still there"), before);
        assert_eq!(names(folder.path()), [name]);
    }
}

#[test]
fn what_was_there_is_replaced() {
    for (name, format) in NAMES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        for count in [5, 2] {
            let summary = write(&path, format, small(), &frames(&small(), count)).expect("written");
            assert_eq!(names(folder.path()), [name]);
            if format == Format::PngDir {
                assert_eq!(names(&path).len(), count);
            } else {
                assert_eq!(fs::metadata(&path).expect("a file").len(), summary.bytes);
            }
        }
    }
    // An empty folder is as good as none.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("frames");
    fs::create_dir(&path).expect("a folder");
    write(&path, Format::PngDir, small(), &frames(&small(), 1)).expect("written");
    assert_eq!(names(&path), ["000001.png"]);
}

#[test]
fn a_folder_with_other_files_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pictures");
    fs::create_dir(&path).expect("a folder");
    fs::write(path.join("holiday.png"), b"dear").expect("written");
    let error = refused(&path, Format::PngDir);
    assert_eq!(
        error,
        format!(
            "{} holds other files than the frames of a video (holiday.png); choose another folder or empty it",
            path.display()
        )
    );
    assert_eq!(names(&path), ["holiday.png"]);
    assert_eq!(names(folder.path()), ["pictures"]);

    // One that came while frames were computed.
    let late = folder.path().join("late");
    let mut encoder = Encoder::create(&late, Format::PngDir, small()).expect("begun");
    encoder.push(&frames(&small(), 1)[0]).expect("encoded");
    fs::create_dir(&late).expect("a folder");
    fs::write(late.join("notes.txt"), b"dear").expect("written");
    assert!(matches!(encoder.finish(), Err(MediaError::NotOurs { .. })));
    assert_eq!(names(&late), ["notes.txt"]);
    assert_eq!(names(folder.path()), ["late", "pictures"]);
}

#[test]
fn places_that_cannot_be_are_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), b"").expect("written");
    fs::create_dir(at("folder")).expect("a folder");
    for (name, format) in NAMES {
        let missing = at("missing").join(name);
        assert_eq!(
            refused(&missing, format),
            format!("cannot write {}: there is no folder {}", missing.display(), at("missing").display())
        );
        let below = at("file").join(name);
        let error = refused(&below, format);
        assert!(error.starts_with(&format!("cannot write {}: not a directory", below.display())), "{error}");
        if format == Format::PngDir {
            let expected = format!(
                "{} is a file, and png-dir makes a folder; choose another name",
                at("file").display()
            );
            assert_eq!(refused(&at("file"), format), expected);
        } else {
            let expected = format!(
                "{} is a folder, and {format} makes a file; choose another name",
                at("folder").display()
            );
            assert_eq!(refused(&at("folder"), format), expected);
        }
    }
    // Nobody may write there, not even the superuser.
    #[cfg(target_os = "linux")]
    for (name, format) in NAMES {
        let path = Path::new("/proc/self").join(name);
        let error = refused(&path, format);
        assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
        assert!(!error.contains(".part"), "{error}");
    }
    #[cfg(unix)]
    assert_eq!(
        refused(Path::new("/dev/null"), Format::Mp4),
        "/dev/null is a device, and mp4 makes a file; choose another name"
    );
    assert_eq!(names(folder.path()), ["file", "folder"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_vanished_folder_is_one_error_and_then_it_is_over() {
    for (name, format) in NAMES {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).expect("a folder");
        let path = inner.join(name);
        let mut encoder = Encoder::create(&path, format, small()).expect("begun");
        let frame = &frames(&small(), 1)[0];
        encoder.push(frame).expect("encoded");
        fs::remove_dir_all(&inner).expect("removed");
        let pushed = encoder.push(frame);
        if format == Format::PngDir {
            let error = pushed.expect_err("no folder").to_string();
            assert!(error.starts_with(&format!("cannot write {}: ", path.display())), "{error}");
            assert!(matches!(encoder.push(frame), Err(MediaError::GivenUp { .. })));
        }
        let error = encoder.finish().expect_err("no folder").to_string();
        assert!(error.contains(&path.display().to_string()) && !error.contains('\n'), "{error}");
        assert!(!error.contains(".part"), "{error}");
    }
}

#[test]
fn a_frame_of_another_length_is_refused_and_may_come_again() {
    for (name, format) in NAMES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        let mut encoder = Encoder::create(&path, format, small()).expect("begun");
        for length in [0, 3071, 3073] {
            let error = encoder.push(&vec![0; length]).expect_err("refused").to_string();
            assert_eq!(error, format!("a frame of 32x32 has 3072 bytes, not {length}"));
        }
        assert_eq!(encoder.frames(), 0);
        encoder.push(&vec![0; 3072]).expect("encoded");
        assert_eq!(encoder.finish().expect("finished").frames, 1);
    }
}

#[test]
fn a_video_without_frames_is_none() {
    for (name, format) in NAMES {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        let error =
            Encoder::create(&path, format, small()).expect("begun").finish().expect_err("empty").to_string();
        assert_eq!(error, format!("{} would hold no frame, so it was not written", path.display()));
        assert!(names(folder.path()).is_empty());
    }
}

#[cfg(unix)]
#[test]
fn others_may_read_what_the_users_mask_lets_them() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    // Whatever the mask is, an ordinary file shows it.
    fs::write(folder.path().join("ordinary"), b"").expect("written");
    fs::create_dir(folder.path().join("ordinary folder")).expect("a folder");
    let mode =
        |name: &str| fs::metadata(folder.path().join(name)).expect("there").permissions().mode() & 0o777;
    for (name, format) in NAMES {
        write(&folder.path().join(name), format, small(), &frames(&small(), 1)).expect("written");
        let like = if format == Format::PngDir { "ordinary folder" } else { "ordinary" };
        assert_eq!(mode(name), mode(like), "{format}");
    }
}
