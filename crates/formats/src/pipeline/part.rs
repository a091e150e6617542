//! One network of a pipeline: tensors under their file's names, and a configuration.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wushi_graph::{DType, ReadError, TensorDesc, WeightSource};

use super::Object;
use crate::checkpoint::Made;
use crate::error::excerpt;
use crate::mapped::Mapped;
use crate::{FormatError, Metadata, PipelineError};

mod open;
mod scales;

pub(super) use open::{is_usual, object};

/// A tensor as a part has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartTensor {
    /// The name in the file, less what [`Part::below`] took off.
    pub name: String,
    /// The element type as the file says it, e.g. `F8_E4M3`.
    pub stored: String,
    /// What its bytes are when read, if that is supported. Floats of eight bits are read as BF16.
    pub dtype: Option<DType>,
    /// Outermost dimension first; the last one is contiguous. Empty for a single number.
    pub shape: Vec<usize>,
}

impl PartTensor {
    /// Number of elements: the product of the shape, which the reader has checked for overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes it takes when read; 0 if its type is not supported.
    pub fn bytes(&self) -> usize {
        self.dtype.and_then(|dtype| dtype.bytes_of(self.elements())).unwrap_or(0)
    }
}

/// An open part: headers read and checked, tensors mapped.
///
/// Cheap to clone: the mappings are shared.
#[derive(Clone, Debug)]
pub struct Part {
    /// What was opened, for messages.
    path: PathBuf,
    config: Option<Arc<Object>>,
    metadata: Arc<Metadata>,
    files: Arc<Vec<Mapped>>,
    tensors: Vec<PartTensor>,
    /// How each of `tensors` is made.
    made: Vec<Made>,
    by_name: HashMap<String, usize>,
}

impl Part {
    /// The file or folder that was opened; empty if the part was read from memory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.json`, if there is one.
    pub fn config(&self) -> Option<&Object> {
        self.config.as_deref()
    }

    /// A GGUF file's metadata; empty for all others.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// `general.architecture` of a GGUF file.
    ///
    /// # Errors
    /// If it is no text.
    pub fn architecture(&self) -> Result<Option<&str>, FormatError> {
        self.metadata.str("general.architecture").map_err(|error| self.error(error))
    }

    /// The files that hold the tensors, with their sizes in bytes; none if the part was read from memory.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files.iter().filter_map(|file| Some((file.path()?, file.as_slice().len() as u64)))
    }

    /// All tensors, in the order of the files. Scales and the marks beside them are not among them.
    pub fn tensors(&self) -> &[PartTensor] {
        &self.tensors
    }

    /// The names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// The tensor of this name, whether its type is supported or not.
    pub fn tensor(&self, name: &str) -> Option<&PartTensor> {
        self.tensors.get(*self.by_name.get(name)?)
    }

    /// The shape of the tensor of this name, outermost dimension first.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensor(name)?.shape)
    }

    /// What the tensor of this name is.
    ///
    /// # Errors
    /// Without such a tensor, and where its type is not supported. They name the file.
    pub fn desc(&self, name: &str) -> Result<TensorDesc<'_>, FormatError> {
        let tensor =
            self.tensor(name).ok_or_else(|| self.error(FormatError::MissingTensor(excerpt(name))))?;
        match tensor.dtype {
            Some(dtype) => Ok(TensorDesc { dtype, shape: &tensor.shape }),
            None => Err(self.error(FormatError::UnsupportedType {
                tensor: excerpt(name),
                found: tensor.stored.clone(),
                supported: "F32, F16, BF16, F8_E4M3, F8_E5M2 and the blocks of GGUF".to_owned(),
            })),
        }
    }

    /// The tensor's bytes: those of the file, or made of them.
    ///
    /// # Errors
    /// Without such a tensor, and where it holds what is no number and cannot be told in its type.
    pub fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        let place = *self.by_name.get(name).ok_or_else(|| ReadError::missing(name))?;
        self.made[place]
            .bytes(&self.files, &self.tensors[place].shape)
            .map_err(|problem| ReadError { name: name.to_owned(), problem })
    }

    /// Says that the tensor's bytes were copied and its pages may leave memory. Only a hint.
    pub fn release(&self, name: &str) {
        let Some(&place) = self.by_name.get(name) else { return };
        for piece in self.made[place].pieces() {
            self.files[piece.file].release(&piece.range);
        }
    }

    /// Bytes of all tensors when read.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes() as u64).fold(0, u64::saturating_add)
    }

    /// Elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.elements() as u64).fold(0, u64::saturating_add)
    }

    /// The tensors whose names begin with `prefix`, without it: one network of a file that holds several, or one under a
    /// name of its own. Nothing if there are none.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Option<Part> {
        let mut below =
            Part { tensors: Vec::new(), made: Vec::new(), by_name: HashMap::new(), ..self.clone() };
        for (tensor, made) in self.tensors.iter().zip(&self.made) {
            let Some(name) = tensor.name.strip_prefix(prefix).filter(|name| !name.is_empty()) else {
                continue;
            };
            // What is different stays different without what is the same.
            below.by_name.insert(name.to_owned(), below.tensors.len());
            below.tensors.push(PartTensor { name: name.to_owned(), ..tensor.clone() });
            below.made.push(made.clone());
        }
        (!below.tensors.is_empty()).then_some(below)
    }

    /// Lets a tensor be seen in another shape of as many elements in the same order, where a format could not say it:
    /// GGUF files have patch embeddings with dimensions merged.
    ///
    /// # Errors
    /// Without such a tensor, with another number of elements, and where rows would cut blocks.
    pub fn view_as(&mut self, name: &str, shape: &[usize]) -> Result<(), FormatError> {
        let missing = || self.error(FormatError::MissingTensor(excerpt(name)));
        let place = *self.by_name.get(name).ok_or_else(missing)?;
        let tensor = &self.tensors[place];
        let refuse = |problem| {
            let (found, wanted) = (tensor.shape.clone(), shape.to_vec());
            Err(self
                .error(PipelineError::OtherShape { tensor: excerpt(name), found, wanted, problem }.into()))
        };
        let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        if elements != Some(tensor.elements()) {
            return refuse("they differ in elements, so the file belongs to another model");
        }
        let block = tensor.dtype.map_or(1, DType::block_elements);
        if !shape.last().copied().unwrap_or(1).is_multiple_of(block) {
            return refuse(
                "its blocks would reach over rows; convert the model with this tensor in F16 or F32",
            );
        }
        self.tensors[place].shape = shape.to_vec();
        Ok(())
    }

    /// Feeds everything that tells this part from others to a digest, at the cost of a few pages: the tensors' names,
    /// types and shapes, and the first 4 KiB of each. Not the configuration, which is read for what it says.
    pub fn identify(&self, feed: &mut dyn FnMut(&[u8])) {
        const SAMPLE: usize = 4096;
        for (tensor, made) in self.tensors.iter().zip(&self.made) {
            feed(format!("\n{} {} {:?}\n", tensor.name, tensor.stored, tensor.shape).as_bytes());
            made.identify(&self.files, SAMPLE, feed);
        }
    }

    /// An error with the path it concerns, unless there is none or it says so itself.
    pub(super) fn error(&self, error: FormatError) -> FormatError {
        in_file(&self.path, error)
    }

    /// Tensors and how they are made, of files whose readers have checked them.
    fn assemble(
        path: &Path,
        metadata: Metadata,
        files: Vec<Mapped>,
        tensors: Vec<(PartTensor, Made)>,
    ) -> Result<Part, FormatError> {
        let mut part = Part {
            path: path.to_owned(),
            config: None,
            metadata: Arc::new(metadata),
            files: Arc::new(files),
            tensors: Vec::with_capacity(tensors.len()),
            made: Vec::with_capacity(tensors.len()),
            by_name: HashMap::with_capacity(tensors.len()),
        };
        for (tensor, made) in tensors {
            match part.by_name.entry(tensor.name.clone()) {
                Entry::Vacant(vacant) => vacant.insert(part.tensors.len()),
                Entry::Occupied(taken) => return Err(FormatError::DuplicateTensor(excerpt(taken.key()))),
            };
            part.tensors.push(tensor);
            part.made.push(made);
        }
        Ok(part)
    }
}

impl WeightSource for Part {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        let tensor = self.tensor(name)?;
        Some(TensorDesc { dtype: tensor.dtype?, shape: &tensor.shape })
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        Part::read(self, name)
    }

    fn release(&self, name: &str) {
        Part::release(self, name);
    }
}

/// An error with the path it concerns, unless it says so itself.
pub(super) fn in_file(path: &Path, error: FormatError) -> FormatError {
    match error {
        error @ (FormatError::Io { .. } | FormatError::InFile { .. }) => error,
        error if path.as_os_str().is_empty() => error,
        error => FormatError::InFile { path: path.to_owned(), error: Box::new(error) },
    }
}
