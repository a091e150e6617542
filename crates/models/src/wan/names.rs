//! From the names and shapes of files to ours.
//!
//! Every network was published more than once, under other names each time. A [`Layout`] is one set of names beside
//! ours. A tensor that it does not have, one that is missing and one of another shape are errors that say what the file
//! calls it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use wushi_formats::pipeline::Part;
use wushi_graph::{DType, Graph, ReadError, TensorDesc, WeightSource};

use crate::config::ModelError;

/// The names of one way of publishing.
pub(crate) struct Layout {
    /// For people.
    pub(crate) name: &'static str,
    /// A tensor that no other layout has.
    pub(crate) mark: &'static str,
    /// Ours and theirs. `#` is a number, `*` is `weight` or `bias`.
    pub(crate) names: &'static [(&'static str, &'static str)],
    /// What the names of tensors begin with that are not used.
    pub(crate) unused: &'static [&'static str],
    /// Levels are numbered through, see [`Flat`].
    pub(crate) flat: Option<Flat>,
    /// Of a decoder: whether levels have shortcuts around them.
    pub(crate) shortcuts: bool,
}

/// A list that runs through all levels of a decoder: `list.7.x` is `list.1.list.3.x` if the first level has four entries.
/// Every level but the last ends with an entry that has this tensor.
pub(crate) struct Flat {
    pub(crate) list: &'static str,
    pub(crate) last: &'static str,
}

/// The tensors of a part by our names, with the shapes that their file has.
pub(crate) struct Tensors {
    part: Part,
    layout: &'static Layout,
    /// Where the levels of a flat list begin.
    levels: Vec<usize>,
    /// Our name, and the file's.
    names: BTreeMap<String, String>,
    /// The first tensor that has no name here.
    strange: Option<String>,
}

/// The weights of a network by our names, in the shapes that its graphs declare.
#[derive(Clone, Debug)]
pub struct Weights {
    part: Part,
    tensors: BTreeMap<String, Place>,
}

#[derive(Clone, Debug)]
struct Place {
    /// What the file calls it.
    name: String,
    dtype: DType,
    shape: Vec<usize>,
}

impl Tensors {
    /// Finds out which of these layouts a part has.
    pub(crate) fn new(part: Part, layouts: &'static [Layout]) -> Result<Tensors, ModelError> {
        let Some(layout) = layouts.iter().find(|layout| part.tensor(layout.mark).is_some()) else {
            let known = layouts.iter().map(|layout| format!("`{}` ({})", layout.mark, layout.name));
            return Err(ModelError::UnknownLayout { known: known.collect::<Vec<_>>().join(", ") });
        };
        let levels = layout.flat.as_ref().map_or(Vec::new(), |flat| flat.levels(&part));
        let mut tensors = Tensors { part, layout, levels, names: BTreeMap::new(), strange: None };
        for name in tensors.part.names() {
            match tensors.ours(name) {
                // Of one that is there twice (tied), the first.
                Some(ours) => {
                    tensors.names.entry(ours).or_insert_with(|| name.to_owned());
                }
                None if layout.unused.iter().any(|unused| name.starts_with(unused)) => {}
                None => {
                    tensors.strange.get_or_insert_with(|| name.to_owned());
                }
            }
        }
        Ok(tensors)
    }

    fn ours(&self, name: &str) -> Option<String> {
        let nested = self.layout.flat.as_ref().and_then(|flat| flat.nest(name, &self.levels));
        let name = nested.as_deref().unwrap_or(name);
        self.layout.names.iter().find_map(|(ours, theirs)| translate(name, theirs, ours))
    }

    /// What the file would call it.
    fn theirs(&self, ours: &str) -> String {
        let name = self.layout.names.iter().find_map(|(from, to)| translate(ours, from, to));
        let name = name.unwrap_or_else(|| ours.to_owned());
        let flat = self.layout.flat.as_ref().and_then(|flat| flat.flatten(&name, &self.levels));
        flat.unwrap_or(name)
    }

    pub(crate) fn layout(&self) -> &'static Layout {
        self.layout
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(crate) fn shape(&self, name: &str) -> Result<&[usize], ModelError> {
        let theirs = self.names.get(name).ok_or_else(|| self.missing(name))?;
        self.part.shape(theirs).ok_or_else(|| self.missing(name))
    }

    /// Elements of a vector.
    pub(crate) fn length(&self, name: &str) -> Result<usize, ModelError> {
        match self.shape(name)?.iter().product() {
            0 => Err(self.wrong_shape(name, "[at least one]")),
            length => Ok(length),
        }
    }

    /// Rows of a matrix.
    pub(crate) fn outputs(&self, name: &str) -> Result<usize, ModelError> {
        match *self.shape(name)? {
            [outputs, _] if outputs > 0 => Ok(outputs),
            _ => Err(self.wrong_shape(name, "[outputs, inputs]")),
        }
    }

    /// Columns of a matrix.
    pub(crate) fn inputs(&self, name: &str) -> Result<usize, ModelError> {
        match *self.shape(name)? {
            [_, inputs] if inputs > 0 => Ok(inputs),
            _ => Err(self.wrong_shape(name, "[outputs, inputs]")),
        }
    }

    /// How many blocks of this name there are: one more than the highest number, as far as tensors can fill them.
    pub(crate) fn blocks(&self, name: &str) -> usize {
        let number = |ours: &String| {
            let (number, _) = ours.strip_prefix(name)?.strip_prefix('.')?.split_once('.')?;
            number.parse::<usize>().ok()
        };
        let highest = self.names.keys().filter_map(number).max();
        // A number from a file: a name that lies must not make a graph of millions of layers.
        highest.map_or(0, |highest| highest.saturating_add(1).min(self.names.len() + 1))
    }

    /// The first tensor without a name here that begins like this.
    pub(crate) fn unknown(&self, beginnings: &[&str]) -> Option<&str> {
        let strange =
            |name: &&str| beginnings.iter().any(|start| name.contains(start)) && self.ours(name).is_none();
        self.part.names().find(strange)
    }

    pub(crate) fn missing(&self, name: &str) -> ModelError {
        ModelError::MissingTensor { name: self.theirs(name) }
    }

    pub(crate) fn wrong_shape(&self, name: &str, expected: impl ToString) -> ModelError {
        let theirs = self.names.get(name).cloned().unwrap_or_else(|| self.theirs(name));
        let found = format!("{:?}", self.part.shape(&theirs).unwrap_or_default());
        ModelError::TensorShape { name: theirs, found, expected: expected.to_string() }
    }

    /// The weights that these graphs declare. All of the part's tensors must be among them.
    pub(crate) fn fit(self, graphs: &[Graph]) -> Result<Weights, ModelError> {
        if let Some(name) = self.strange {
            return Err(ModelError::UnusedTensor { name });
        }
        let mut tensors = BTreeMap::new();
        for decl in graphs.iter().flat_map(Graph::weights) {
            let (shape, wanted) = (self.shape(&decl.name)?, decl.tensor_shape());
            if !same_order(shape, &wanted) {
                return Err(self.wrong_shape(&decl.name, format!("{wanted:?}")));
            }
            let name = &self.names[&decl.name];
            let dtype = self.part.desc(name)?.dtype;
            if !wanted.last().copied().unwrap_or(1).is_multiple_of(dtype.block_elements()) {
                return Err(self.wrong_shape(&decl.name, format!("{wanted:?}, in a type without blocks")));
            }
            let place = Place { name: name.clone(), dtype, shape: wanted };
            tensors.insert(decl.name.clone(), place);
        }
        match self.names.iter().find(|(ours, _)| !tensors.contains_key(*ours)) {
            None => Ok(Weights { part: self.part, tensors }),
            Some((_, theirs)) => Err(ModelError::UnusedTensor { name: theirs.clone() }),
        }
    }
}

impl Weights {
    /// The files they are in.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// The names of all weights: ours, and the file's.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tensors.iter().map(|(ours, place)| (ours.as_str(), place.name.as_str()))
    }
}

impl WeightSource for Weights {
    fn describe(&self, name: &str) -> Option<TensorDesc<'_>> {
        let place = self.tensors.get(name)?;
        Some(TensorDesc { dtype: place.dtype, shape: &place.shape })
    }

    fn read(&self, name: &str) -> Result<Cow<'_, [u8]>, ReadError> {
        let place = self.tensors.get(name).ok_or_else(|| ReadError::missing(name))?;
        self.part.read(&place.name)
    }

    fn release(&self, name: &str) {
        if let Some(place) = self.tensors.get(name) {
            self.part.release(&place.name);
        }
    }
}

/// Whether elements in one shape lie in the other's order: after dimensions of one are dropped, neighbours in one of the
/// shapes are merged in the other. A transposed matrix is not the same.
fn same_order(a: &[usize], b: &[usize]) -> bool {
    let plain = |shape: &[usize]| -> Vec<usize> { shape.iter().copied().filter(|&n| n != 1).collect() };
    let (a, b) = (plain(a), plain(b));
    merges_into(&a, &b) || merges_into(&b, &a)
}

/// Whether every dimension of `coarse` is the product of the next ones of `fine`.
fn merges_into(fine: &[usize], coarse: &[usize]) -> bool {
    let mut rest = fine.iter();
    let merged = coarse.iter().all(|&wanted| {
        let mut product = 1usize;
        while product < wanted {
            let Some(next) = rest.next().and_then(|&n| product.checked_mul(n)) else { return false };
            // Nothing has no order.
            if next == 0 {
                return false;
            }
            product = next;
        }
        product == wanted
    });
    merged && rest.next().is_none()
}

/// `name` in the pattern `to` if it is one of the pattern `from`. Numbers of `to` that `from` does not have stay open.
fn translate(name: &str, from: &str, to: &str) -> Option<String> {
    let (mut numbers, mut ending) = (Vec::new(), None);
    let (mut segments, mut patterns) = (name.split('.'), from.split('.'));
    loop {
        match (segments.next(), patterns.next()) {
            (None, None) => break,
            (Some(number), Some("#")) if is_number(number) => numbers.push(number),
            (Some(end @ ("weight" | "bias")), Some("*")) => ending = Some(end),
            (Some(segment), Some(pattern)) if segment == pattern => {}
            _ => return None,
        }
    }
    let mut numbers = numbers.into_iter();
    let segment = |pattern| match pattern {
        "#" => numbers.next().unwrap_or("#"),
        "*" => ending.unwrap_or("*"),
        other => other,
    };
    Some(to.split('.').map(segment).collect::<Vec<_>>().join("."))
}

/// A number as names have them.
fn is_number(text: &str) -> bool {
    text.parse::<usize>().is_ok_and(|number| number.to_string() == text)
}

impl Flat {
    /// The numbers that levels begin with.
    fn levels(&self, part: &Part) -> Vec<usize> {
        let mut last: Vec<usize> = part
            .names()
            .filter_map(|name| {
                let (number, rest) = self.entry(name)?;
                (rest == self.last).then_some(number)
            })
            .collect();
        last.sort_unstable();
        std::iter::once(0).chain(last.into_iter().map(|number| number.saturating_add(1))).collect()
    }

    /// An entry's number, and the name of a tensor in it.
    fn entry<'a>(&self, name: &'a str) -> Option<(usize, &'a str)> {
        let (number, rest) = name.strip_prefix(self.list)?.strip_prefix('.')?.split_once('.')?;
        is_number(number).then(|| number.parse().ok().map(|number| (number, rest)))?
    }

    fn nest(&self, name: &str, levels: &[usize]) -> Option<String> {
        let (number, rest) = self.entry(name)?;
        let level = levels.partition_point(|&start| start <= number).checked_sub(1)?;
        Some(format!("{}.{level}.upsamples.{}.{rest}", self.list, number - levels[level]))
    }

    fn flatten(&self, name: &str, levels: &[usize]) -> Option<String> {
        let (level, rest) = self.entry(name)?;
        let (entry, rest) = rest.strip_prefix("upsamples.")?.split_once('.')?;
        let number = match entry.parse::<usize>() {
            Ok(entry) => levels.get(level)?.checked_add(entry)?,
            // What ends a level is not numbered in ours.
            Err(_) => levels.get(level + 1)?.checked_sub(1)?,
        };
        Some(format!("{}.{number}.{rest}", self.list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_in_another_cut_but_never_transposed() {
        for (file, ours) in [
            (&[1, 6, 64][..], &[384][..]),
            (&[16, 1, 1, 1], &[16]),
            (&[8, 16, 3, 3], &[8, 16, 1, 3, 3]),
            (&[64 * 16, 1, 2, 2], &[64, 16, 1, 2, 2]),
            (&[64, 16, 1, 4], &[64, 16, 1, 2, 2]),
            (&[4096], &[64, 16, 1, 2, 2]),
            (&[48, 16, 1, 1], &[48, 16]),
            (&[1], &[1, 1]),
        ] {
            assert!(same_order(file, ours) && same_order(ours, file), "{file:?} {ours:?}");
        }
        for (file, ours) in [
            (&[64, 32][..], &[32, 64][..]),
            (&[6, 4], &[4, 6]),
            (&[2, 3, 4], &[4, 6]),
            (&[0], &[4]),
            (&[], &[4]),
        ] {
            assert!(!same_order(file, ours), "{file:?} {ours:?}");
        }
    }

    #[test]
    fn names_are_translated_by_patterns() {
        let to_ours = |name| translate(name, "blocks.#.self_attn.q.*", "blk.#.attn_q.*");
        assert_eq!(to_ours("blocks.12.self_attn.q.bias").as_deref(), Some("blk.12.attn_q.bias"));
        for other in ["blocks.012.self_attn.q.bias", "blocks.1.self_attn.q.scale", "blocks.1.self_attn.q"] {
            assert_eq!(to_ours(other), None);
        }
        let open = translate("up.1.conv.bias", "up.#.conv.*", "decoder.upsamples.#.upsamples.#.resample.1.*");
        assert_eq!(open.as_deref(), Some("decoder.upsamples.1.upsamples.#.resample.1.bias"));
    }

    #[test]
    fn flat_lists_are_cut_into_levels() {
        let flat = Flat { list: "list", last: "resample.1.weight" };
        let levels = [0, 4, 8];
        let nested = flat.nest("list.5.x.y", &levels);
        assert_eq!(nested.as_deref(), Some("list.1.upsamples.1.x.y"));
        assert_eq!(flat.flatten("list.1.upsamples.1.x.y", &levels).as_deref(), Some("list.5.x.y"));
        assert_eq!(flat.flatten("list.1.upsamples.#.x", &levels).as_deref(), Some("list.7.x"));
        assert_eq!(flat.nest("other.5.x", &levels), None);
    }
}
