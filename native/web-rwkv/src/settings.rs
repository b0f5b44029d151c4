//! Checks of the arguments from Python.

use std::fmt::Display;

use web_rwkv::runtime::infer::rnn::MIN_TOKEN_CHUNK_SIZE;

use crate::failure::Failure;

/// The largest chunk after which the recurrent state is correct.
///
/// web-rwkv 0.10.20 packs the length of a step into 8 bits (`Cursor::pack` in `src/tensor/mod.rs`). From 256 tokens on
/// the shaders compare with the last 8 bits of the length, so the token shift is not saved, or saved from another
/// token: the logits of that step are correct, those of every later step are not. 224 is the last multiple of 32 below.
pub const LARGEST_CHUNK: usize = 224;

/// The most sequences that keep a state of their own.
///
/// `Cursor::pack` has 8 bits for a sequence's number too: the 257th would share the first one's state.
pub const LARGEST_BATCH: usize = 256;

/// How the large matrices of a layer are stored on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quant {
    Fp16,
    Int8,
    Nf4,
    Sf4,
}

impl Quant {
    pub const ALL: [Self; 4] = [Self::Fp16, Self::Int8, Self::Nf4, Self::Sf4];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Nf4 => "nf4",
            Self::Sf4 => "sf4",
        }
    }

    pub fn parse(name: &str) -> Result<Self, Failure> {
        Self::ALL
            .into_iter()
            .find(|quant| quant.name() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(Self::name).join(", ");
                Failure::Value(format!("quant is {name:?}, but must be one of {known}"))
            })
    }

    pub const fn engine(self) -> web_rwkv::runtime::model::Quant {
        use web_rwkv::runtime::model::Quant as Engine;
        match self {
            Self::Fp16 => Engine::None,
            Self::Int8 => Engine::Int8,
            Self::Nf4 => Engine::NF4,
            Self::Sf4 => Engine::SF4,
        }
    }
}

/// Number of layers, from the first, that are stored as `quant`; `None` asks for all of them.
pub fn quantized_layers(
    quant: Quant,
    requested: Option<i64>,
    layers: usize,
) -> Result<usize, Failure> {
    let name = quant.name();
    match (quant, requested) {
        (Quant::Fp16, None | Some(0)) => Ok(0),
        (Quant::Fp16, Some(count)) => Err(Failure::Value(format!(
            "quant_layers is {count}, but fp16 quantizes no layer: leave it out or choose another quant"
        ))),
        (_, None) => Ok(layers),
        (_, Some(count)) => usize::try_from(count)
            .ok()
            .filter(|count| (1..=layers).contains(count))
            .ok_or_else(|| {
                Failure::Value(format!(
                    "quant_layers is {count}, but {name} takes 1 to {layers}, the layers of this model"
                ))
            }),
    }
}

/// The number of tokens that the engine takes at a time: `requested`, rounded up to a multiple of 32.
pub fn chunk(requested: i64) -> Result<usize, Failure> {
    let size = usize::try_from(requested).unwrap_or(0);
    if size == 0 {
        let sentence = format!("chunk is {requested}, but must be 1 to {LARGEST_CHUNK}");
        Err(Failure::Value(sentence))
    } else if size > LARGEST_CHUNK {
        Err(Failure::Value(format!(
            "chunk is {requested}, but must be 1 to {LARGEST_CHUNK}: web-rwkv {} keeps a chunk's length in 8 bits, \
             and a longer one leaves a wrong state",
            env!("WEB_RWKV_VERSION")
        )))
    } else {
        Ok(size.next_multiple_of(MIN_TOKEN_CHUNK_SIZE))
    }
}

/// The number of sequences of a batch.
pub fn sequences(requested: i64) -> Result<usize, Failure> {
    usize::try_from(requested)
        .ok()
        .filter(|count| (1..=LARGEST_BATCH).contains(count))
        .ok_or_else(|| {
            Failure::Value(format!(
                "sequences is {requested}, but must be 1 to {LARGEST_BATCH}: web-rwkv {} keeps a sequence's number in \
                 8 bits, and more would share states",
                env!("WEB_RWKV_VERSION")
            ))
        })
}

/// The number of one of `count` sequences.
pub fn sequence(requested: i64, count: usize) -> Result<usize, Failure> {
    usize::try_from(requested)
        .ok()
        .filter(|sequence| *sequence < count)
        .ok_or_else(|| {
            Failure::Value(format!(
                "sequence is {requested}, but this batch's sequences are 0 to {}",
                count - 1
            ))
        })
}

/// Token ids as the engine takes them: at least one, each below `vocabulary`.
pub fn tokens(ids: &[i64], vocabulary: usize) -> Result<Vec<u32>, Failure> {
    if ids.is_empty() {
        return Err(Failure::Value(
            "tokens is empty, but forward needs at least one token".into(),
        ));
    }
    below(ids, vocabulary, "tokens")
}

/// A list of token ids for each of `count` sequences: at least one token in all, each below `vocabulary`.
pub fn token_lists(
    lists: &[Vec<i64>],
    count: usize,
    vocabulary: usize,
) -> Result<Vec<Vec<u32>>, Failure> {
    if lists.len() != count {
        return Err(Failure::Value(format!(
            "tokens has {} lists, but this batch has {count} sequences",
            lists.len()
        )));
    }
    if lists.iter().all(Vec::is_empty) {
        return Err(Failure::Value(
            "tokens is empty for every sequence, but forward needs at least one token".into(),
        ));
    }
    lists
        .iter()
        .enumerate()
        .map(|(sequence, ids)| below(ids, vocabulary, format_args!("tokens[{sequence}]")))
        .collect()
}

/// The ids of the list called `name`, each of them below `vocabulary`.
fn below(ids: &[i64], vocabulary: usize, name: impl Display) -> Result<Vec<u32>, Failure> {
    ids.iter()
        .enumerate()
        .map(|(position, &id)| {
            u32::try_from(id)
                .ok()
                .filter(|id| (*id as usize) < vocabulary)
                .ok_or_else(|| {
                    Failure::Value(format!(
                        "{name}[{position}] is {id}, but this model's token ids are 0 to {}",
                        vocabulary - 1
                    ))
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        match result {
            Err(Failure::Value(sentence)) => sentence,
            other => panic!("expected a Failure::Value, got {other:?}"),
        }
    }

    #[test]
    fn every_quant_parses_from_its_own_name() {
        for quant in Quant::ALL {
            assert_eq!(Quant::parse(quant.name()), Ok(quant));
        }
    }

    #[test]
    fn an_unknown_quant_is_told_the_known_ones() {
        for name in ["q8_0", "INT8", "", "fp16 "] {
            let text = sentence(Quant::parse(name));
            assert!(text.starts_with(&format!("quant is {name:?}")), "{text}");
            assert!(text.ends_with("fp16, int8, nf4, sf4"), "{text}");
        }
    }

    #[test]
    fn layers_are_counted_from_the_first() {
        assert_eq!(quantized_layers(Quant::Int8, None, 32), Ok(32));
        assert_eq!(quantized_layers(Quant::Int8, Some(31), 32), Ok(31));
        assert_eq!(quantized_layers(Quant::Sf4, Some(32), 32), Ok(32));
        assert_eq!(quantized_layers(Quant::Fp16, None, 32), Ok(0));
        assert_eq!(quantized_layers(Quant::Fp16, Some(0), 32), Ok(0));
    }

    #[test]
    fn a_layer_count_out_of_range_names_the_range() {
        for count in [-1, 0, 33, i64::MAX] {
            let text = sentence(quantized_layers(Quant::Nf4, Some(count), 32));
            assert!(
                text.starts_with(&format!("quant_layers is {count},")),
                "{text}"
            );
            assert!(text.contains("nf4 takes 1 to 32"), "{text}");
        }
        let text = sentence(quantized_layers(Quant::Fp16, Some(3), 32));
        assert!(text.contains("fp16 quantizes no layer"), "{text}");
    }

    #[test]
    fn a_chunk_rounds_up_to_a_multiple_of_32() {
        let rounded = [
            (1, 32),
            (32, 32),
            (33, 64),
            (128, 128),
            (193, 224),
            (224, 224),
        ];
        for (requested, size) in rounded {
            assert_eq!(chunk(requested), Ok(size));
        }
    }

    #[test]
    fn a_chunk_must_be_positive() {
        for requested in [0, -1, i64::MIN] {
            let text = sentence(chunk(requested));
            assert!(
                text.starts_with(&format!("chunk is {requested},")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_chunk_that_would_corrupt_the_state_is_refused() {
        for requested in [225, 256, 512, i64::MAX] {
            let text = sentence(chunk(requested));
            assert!(text.contains("must be 1 to 224"), "{text}");
            assert!(text.contains("wrong state"), "{text}");
        }
    }

    #[test]
    fn tokens_within_the_vocabulary_pass_unchanged() {
        assert_eq!(tokens(&[0, 5, 99], 100), Ok(vec![0, 5, 99]));
    }

    #[test]
    fn a_bad_token_is_named_with_its_position() {
        assert!(sentence(tokens(&[], 100)).starts_with("tokens is empty"));
        for id in [-1, 100, 1 << 32, i64::MAX] {
            let text = sentence(tokens(&[3, id], 100));
            assert!(text.starts_with(&format!("tokens[1] is {id},")), "{text}");
            assert!(text.ends_with("0 to 99"), "{text}");
        }
    }

    #[test]
    fn a_batch_has_as_many_sequences_as_8_bits_can_number() {
        for count in [1, 8, 256] {
            assert_eq!(sequences(count), Ok(count as usize));
        }
        for count in [0, -1, 257, i64::MAX] {
            let text = sentence(sequences(count));
            assert!(
                text.starts_with(&format!("sequences is {count}, but must be 1 to 256")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_sequence_is_one_of_the_batch() {
        assert_eq!(sequence(3, 4), Ok(3));
        for number in [-1, 4] {
            let text = sentence(sequence(number, 4));
            assert!(text.ends_with("sequences are 0 to 3"), "{text}");
        }
    }

    #[test]
    fn lists_of_tokens_may_be_empty_but_not_all_of_them() {
        let lists = [vec![5], vec![], vec![0, 99]];
        assert_eq!(
            token_lists(&lists, 3, 100),
            Ok(vec![vec![5], vec![], vec![0, 99]])
        );
        let text = sentence(token_lists(&lists, 4, 100));
        assert_eq!(text, "tokens has 3 lists, but this batch has 4 sequences");
        let text = sentence(token_lists(&[vec![], vec![]], 2, 100));
        assert!(
            text.starts_with("tokens is empty for every sequence"),
            "{text}"
        );
        let text = sentence(token_lists(&[vec![1], vec![2, 100]], 2, 100));
        assert!(text.starts_with("tokens[1][1] is 100,"), "{text}");
    }
}
