//! The instructions of a pickle that dictionaries of tensors are made of (protocols 2 to 5, Python's `pickletools`).
//!
//! Values lie in one list and refer to each other by place, and to texts in the file, so that no pickle nests a value
//! deeper than a machine's stack or makes more of itself than a few words for each of its bytes.

use std::collections::HashMap;

use super::bad;
use crate::FormatError;
use crate::error::excerpt;

/// A name that a pickle may refer to; whatever else it calls is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`, or `_v3` with the element type at its end.
    RebuildTensor {
        typed: bool,
    },
    RebuildParameter,
    Size,
    /// Elements of this place in the table of types.
    Typed(usize),
    UntypedStorage,
}

/// A value, small enough to copy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A float, or bytes: nothing that tensors need.
    Other,
    Text(&'a str),
    Global(Global),
    /// A list or tuple, by place.
    List(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
}

/// Where elements are: an entry of the archive, and their type if the storage has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: Option<usize>,
}

/// A tensor as the pickle rebuilds it.
#[derive(Clone, Debug)]
pub(super) struct Rebuilt<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// Everything a pickle made, and its result.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    pub(super) lists: Vec<Vec<Value<'a>>>,
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<Rebuilt<'a>>,
    pub(super) result: Option<Value<'a>>,
}

/// Runs through a pickle.
pub(super) fn read(pickle: &[u8]) -> Result<Heap<'_>, FormatError> {
    let mut machine = Machine {
        pickle,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(true) => {}
            Ok(false) => return Ok(machine.heap),
            Err(problem) => return Err(bad(format!("data.pkl, byte {at}: {problem}"))),
        }
    }
}

struct Machine<'a> {
    pickle: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).filter(|&end| end <= self.pickle.len());
        let end = end.ok_or("it ends in the middle of an instruction; the file is truncated or damaged")?;
        let taken = &self.pickle[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    /// A number without sign of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<u64, String> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn text(&mut self, length_bytes: usize) -> Result<Value<'a>, String> {
        let length = self.number(length_bytes)?;
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        std::str::from_utf8(bytes).map(Value::Text).map_err(|_| "a text is not valid UTF-8".to_owned())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.pickle[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without end")?;
        let line = self.take(length)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| "a name is not valid UTF-8".to_owned())
    }

    fn pop(&mut self) -> Result<Value<'a>, String> {
        // What lies below the last mark belongs to another value.
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(|| EMPTY.to_owned()),
            false => Err(EMPTY.to_owned()),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Value<'a>>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len()).ok_or(EMPTY)?;
        Ok(self.stack.split_off(mark))
    }

    fn push_list(&mut self, values: Vec<Value<'a>>) {
        self.stack.push(Value::List(self.heap.lists.len()));
        self.heap.lists.push(values);
    }

    fn push_dict(&mut self) {
        self.stack.push(Value::Dict(self.heap.dicts.len()));
        self.heap.dicts.push(Vec::new());
    }

    fn tuple(&mut self, length: usize) -> Result<(), String> {
        let mut values = (0..length).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        values.reverse();
        self.push_list(values);
        Ok(())
    }

    /// The value that stands before the last mark or on top.
    fn top(&self) -> Result<Value<'a>, String> {
        self.stack.last().copied().ok_or_else(|| EMPTY.to_owned())
    }

    fn set_items(&mut self, items: &[Value<'a>]) -> Result<(), String> {
        let Value::Dict(dict) = self.top()? else {
            return Err("entries for what is no dictionary".to_owned());
        };
        if !items.len().is_multiple_of(2) {
            return Err("a key without value".to_owned());
        }
        self.heap.dicts[dict].extend(items.as_chunks::<2>().0.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn append(&mut self, items: &[Value<'a>]) -> Result<(), String> {
        let Value::List(list) = self.top()? else { return Err("elements for what is no list".to_owned()) };
        self.heap.lists[list].extend_from_slice(items);
        Ok(())
    }

    fn memorise(&mut self, place: u64) -> Result<(), String> {
        let place = u32::try_from(place).map_err(|_| "too many memorised values".to_owned())?;
        let top = self.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Result<(), String> {
        let value = u32::try_from(place).ok().and_then(|place| self.memo.get(&place).copied());
        self.stack.push(value.ok_or("a value that was not memorised")?);
        Ok(())
    }

    /// One instruction. Says whether there are more.
    fn step(&mut self) -> Result<bool, String> {
        let code = self.byte()?;
        match code {
            b'.' => {
                self.heap.result = Some(self.pop()?);
                return Ok(false);
            }
            0x80 => match self.byte()? {
                2..=5 => {}
                other => return Err(format!("protocol {other}; 2 to 5 are read")),
            },
            // A frame's length says nothing that its contents do not.
            0x95 => {
                self.take(8)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'q' | b'r' => {
                let place = self.number(if code == b'q' { 1 } else { 4 })?;
                self.memorise(place)?;
            }
            0x94 => self.memorise(self.memo.len() as u64)?,
            b'h' | b'j' => {
                let place = self.number(if code == b'h' { 1 } else { 4 })?;
                self.recall(place)?;
            }
            b's' | b'u' | b'a' | b'e' => self.add(code)?,
            b'R' => self.call()?,
            b'b' => self.build()?,
            _ => self.make(code)?,
        }
        Ok(true)
    }

    /// An instruction that makes a value.
    fn make(&mut self, code: u8) -> Result<(), String> {
        match code {
            b'N' => self.stack.push(Value::None),
            0x88 | 0x89 => self.stack.push(Value::Bool(code == 0x88)),
            b'K' | b'M' | b'J' | 0x8a => self.integer(code)?,
            b'G' => {
                self.take(8)?;
                self.stack.push(Value::Other);
            }
            b'X' | 0x8c | 0x8d => {
                let text = self.text(length_bytes(code))?;
                self.stack.push(text);
            }
            b'B' | b'C' | 0x8e => {
                let length = self.number(length_bytes(code))?;
                self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
                self.stack.push(Value::Other);
            }
            b')' | b']' => self.push_list(Vec::new()),
            b'}' => self.push_dict(),
            0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
            b't' => {
                let values = self.since_mark()?;
                self.push_list(values);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(global(module, name)?);
            }
            0x93 => {
                let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?) else {
                    return Err("a name that is no text".to_owned());
                };
                self.stack.push(global(module, name)?);
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.stack.push(storage);
            }
            other => return Err(format!("instruction {other:#04x}, which no dictionary of tensors needs")),
        }
        Ok(())
    }

    /// An instruction that adds to a dictionary or list: one entry, or all since the last mark.
    fn add(&mut self, code: u8) -> Result<(), String> {
        match code {
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(&items)
            }
            b'a' => {
                let value = self.pop()?;
                self.append(&[value])
            }
            _ => {
                let items = self.since_mark()?;
                self.append(&items)
            }
        }
    }

    fn integer(&mut self, code: u8) -> Result<(), String> {
        let value = match code {
            b'K' => self.number(1)? as i64,
            b'M' => self.number(2)? as i64,
            b'J' => i64::from(self.number(4)? as u32 as i32),
            _ => {
                let bytes = usize::from(self.byte()?);
                let number = self.number(bytes.min(8))?;
                if bytes > 8 {
                    return Err("an integer of more than 64 bits".to_owned());
                }
                let unused = 64 - 8 * bytes as u32;
                // The sign is that of the last byte there is.
                if bytes == 0 { 0 } else { ((number << unused) as i64) >> unused }
            }
        };
        self.stack.push(Value::Int(value));
        Ok(())
    }

    /// A storage, by what the pickle calls persistent: `("storage", type, key, device, elements)`.
    fn storage(&mut self, id: Value<'a>) -> Result<Value<'a>, String> {
        let Value::List(parts) = id else { return Err("a storage that is none".to_owned()) };
        let [Value::Text("storage"), Value::Global(kind), Value::Text(key), Value::Text(_), Value::Int(_)] =
            self.heap.lists[parts][..]
        else {
            return Err("a storage that is none".to_owned());
        };
        let dtype = match kind {
            Global::Typed(dtype) => Some(dtype),
            Global::UntypedStorage => None,
            _ => return Err("a storage of no type".to_owned()),
        };
        let storage = Value::Storage(self.heap.storages.len());
        self.heap.storages.push(Storage { key, dtype });
        Ok(storage)
    }

    /// One of the few functions, on its arguments.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::List(arguments), Value::Global(function)) = (arguments, function) else {
            return Err("a call of what is no function".to_owned());
        };
        match function {
            Global::OrderedDict if self.heap.lists[arguments].is_empty() => self.push_dict(),
            Global::OrderedDict => return Err("a dictionary made of something else".to_owned()),
            Global::RebuildTensor { typed } => {
                let tensor = self.rebuild(&self.heap.lists[arguments], typed)?;
                self.stack.push(Value::Tensor(self.heap.tensors.len()));
                self.heap.tensors.push(tensor);
            }
            // The tensor, whether it has a gradient, and hooks.
            Global::RebuildParameter => match self.heap.lists[arguments].first() {
                Some(&tensor @ Value::Tensor(_)) => self.stack.push(tensor),
                _ => return Err("a parameter that is no tensor".to_owned()),
            },
            Global::Size => match self.heap.lists[arguments][..] {
                [sizes @ Value::List(_)] => self.stack.push(sizes),
                _ => return Err("a size that is none".to_owned()),
            },
            Global::Typed(_) | Global::UntypedStorage => return Err("a call of a type".to_owned()),
        }
        Ok(())
    }

    /// `(storage, offset, shape, strides, gradient, hooks)`, then the element type in the typed kind.
    fn rebuild(&self, arguments: &[Value<'a>], typed: bool) -> Result<Rebuilt<'a>, String> {
        let [Value::Storage(storage), Value::Int(offset), Value::List(shape), Value::List(strides), ..] =
            *arguments
        else {
            return Err("a tensor that is rebuilt in another way".to_owned());
        };
        let sizes = |list: usize| -> Result<Vec<usize>, String> {
            let size = |value: &Value<'_>| match value {
                Value::Int(size) => usize::try_from(*size).map_err(|_| format!("a size of {size}")),
                _ => Err("a size that is no number".to_owned()),
            };
            match &self.heap.lists[list] {
                list if list.len() > MAX_DIMENSIONS => Err(format!("{} dimensions", list.len())),
                list => list.iter().map(size).collect(),
            }
        };
        let (shape, strides) = (sizes(shape)?, sizes(strides)?);
        if shape.len() != strides.len() {
            return Err(format!("{} strides for {} dimensions", strides.len(), shape.len()));
        }
        let storage = self.heap.storages[storage];
        let dtype = match (typed, arguments.get(6), storage.dtype) {
            (true, Some(Value::Global(Global::Typed(dtype))), _) => *dtype,
            (false, _, Some(dtype)) => dtype,
            _ => return Err("a tensor of no type".to_owned()),
        };
        let offset = usize::try_from(offset).map_err(|_| format!("an offset of {offset}"))?;
        Ok(Rebuilt { key: storage.key, dtype, offset, shape, strides })
    }

    /// Attributes: those of a dictionary (versions of modules) say nothing of its tensors.
    fn build(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.top()? {
            Value::Dict(_) => Ok(()),
            _ => Err("attributes of what has none".to_owned()),
        }
    }
}

/// How many bytes the length of a text or of bytes takes.
fn length_bytes(code: u8) -> usize {
    match code {
        0x8c | b'C' => 1,
        b'X' | b'B' => 4,
        _ => 8,
    }
}

const EMPTY: &str = "a value that is not there; the file is damaged";
/// More dimensions than any tensor has.
const MAX_DIMENSIONS: usize = 16;

/// The function or type of a name. All others are refused: calling them is what makes pickles dangerous.
fn global<'a>(module: &str, name: &str) -> Result<Value<'a>, String> {
    let types = || super::TYPES.iter();
    let storage = || types().position(|(storage, ..)| !storage.is_empty() && *storage == name);
    let dtype = || types().position(|(_, dtype, ..)| *dtype == name);
    let global = match (module, name) {
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor { typed: false }),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::RebuildTensor { typed: true }),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("torch.storage", "UntypedStorage") => Some(Global::UntypedStorage),
        ("torch", "Size") => Some(Global::Size),
        ("torch", _) => storage().or_else(dtype).map(Global::Typed),
        _ => None,
    };
    global.map(Value::Global).ok_or_else(|| {
        let name = excerpt(&format!("{module}.{name}"));
        format!(
            "it calls for `{name}`, which no dictionary of tensors needs and nothing here runs; save the model's \
             state_dict(), or convert it to safetensors"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pickle: &[u8]) -> String {
        read(pickle).unwrap_err().to_string()
    }

    #[test]
    fn what_would_run_something_is_refused_by_name() {
        let error = refused(b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.");
        assert!(error.contains("`os.system`") && error.contains("byte 2"), "{error}");
        let error = refused(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.");
        assert!(error.contains("`builtins.eval`"), "{error}");
        let error = refused(b"\x80\x02(i__main__\nX\n.");
        assert!(error.contains("instruction 0x69"), "{error}");
    }

    #[test]
    fn integers_have_signs() {
        let heap = read(b"\x80\x02(K\xffM\xff\xffJ\xff\xff\xff\xff\x8a\x02\x00\x80\x8a\x00t.").unwrap();
        let ints: Vec<i64> = [255, 65535, -1, -32768, 0].into();
        assert_eq!(heap.lists[0], ints.into_iter().map(Value::Int).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_taken_that_is_not_there() {
        for pickle in [
            &b"."[..],
            b"\x80\x02s.",
            b"\x80\x02h\0.",
            b"K\x01(\x85.",
            b"t.",
            b"X\xff\xff\xff\xff",
            b"",
            b"}K\x01K\x01K\x01u.",
        ] {
            refused(pickle);
        }
    }
}
