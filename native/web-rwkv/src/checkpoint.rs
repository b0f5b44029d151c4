//! Checks that a file is an RWKV-7 model in the layout that web-rwkv's loader expects.
//!
//! The loader reads ranks and sizes from the first layers. A tensor that differs leads to a panic during inference, or
//! to no error at all, so every tensor is checked by name, type and shape before any is loaded.
//! The layout is that of web-rwkv 0.10.20, `src/runtime/v7.rs`: f16, the LoRA matrices transposed to [rank, width] and
//! [width, rank].

use safetensors::{Dtype, SafeTensors};

/// RWKV-7 has one head size.
const HEAD_SIZE: usize = 64;

/// web-rwkv's shaders read rows four numbers at a time and drop or mix up the remainder without an error: a model of
/// rank 6 gives other logits than the same model padded with zeros to rank 8.
const ROW_STEP: usize = 4;

/// The sizes of a checked model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub layers: usize,
    pub width: usize,
    pub vocabulary: usize,
}

/// The shape that a tensor must have.
enum Expected {
    /// This many elements, in any shape: `[C]`, `[1, 1, C]`.
    Elements(usize),
    Matrix([usize; 2]),
}

/// The ranks of the LoRA pairs, the same in every layer.
struct Ranks {
    decay: usize,
    rate: usize,
    gate: usize,
    value: usize,
}

/// Checks every tensor web-rwkv will read; the sentence in `Err` names the first that is wrong.
pub fn check(file: &SafeTensors<'_>) -> Result<Sizes, String> {
    refuse_other_versions(file)?;
    let [vocabulary, width] = matrix(file, "emb.weight")?;
    let hidden = rows(file, "blocks.0.ffn.key.weight")?;
    if width == 0 || !width.is_multiple_of(HEAD_SIZE) {
        return Err(format!(
            "emb.weight is {vocabulary} x {width}, but RWKV-7's width is a multiple of {HEAD_SIZE}"
        ));
    }
    let layers = layers(file)?;
    let ranks = Ranks {
        decay: rows(file, "blocks.0.att.w1")?,
        rate: rows(file, "blocks.0.att.a1")?,
        gate: rows(file, "blocks.0.att.g1")?,
        value: rows(file, "blocks.1.att.v1")?,
    };
    for (name, expected) in outer_tensors(vocabulary, width) {
        expect(file, name, &expected)?;
    }
    for layer in 0..layers {
        for (name, expected) in layer_tensors(layer, width, hidden, &ranks) {
            expect(file, &format!("blocks.{layer}.{name}"), &expected)?;
        }
    }
    Ok(Sizes {
        layers,
        width,
        vocabulary,
    })
}

fn refuse_other_versions(file: &SafeTensors<'_>) -> Result<(), String> {
    let has = |name: &str| file.tensor(name).is_ok();
    if has("blocks.0.att.r_k") {
        Ok(())
    } else if has("blocks.0.att.time_decay") {
        Err("this is an RWKV-6 or older model (it has blocks.0.att.time_decay), and only RWKV-7 is supported".into())
    } else {
        Err("this is not an RWKV-7 model in web-rwkv's layout (blocks.0.att.r_k is missing)".into())
    }
}

/// The number of layers: `blocks.0` on, without a gap.
fn layers(file: &SafeTensors<'_>) -> Result<usize, String> {
    let mut count = 0;
    for name in file.names() {
        let Some(rest) = name.strip_prefix("blocks.") else {
            continue;
        };
        let number = rest.split('.').next().unwrap_or(rest);
        let layer: usize = number
            .parse()
            .ok()
            .filter(|layer| *layer < file.len())
            .ok_or_else(|| format!("tensor {name} has no valid layer number"))?;
        count = count.max(layer + 1);
    }
    if count < 2 {
        return Err(
            "the model has one layer, but web-rwkv reads the value rank from the second".into(),
        );
    }
    Ok(count)
}

fn outer_tensors(vocabulary: usize, width: usize) -> [(&'static str, Expected); 6] {
    use Expected::{Elements, Matrix};
    [
        ("emb.weight", Matrix([vocabulary, width])),
        ("blocks.0.ln0.weight", Elements(width)),
        ("blocks.0.ln0.bias", Elements(width)),
        ("ln_out.weight", Elements(width)),
        ("ln_out.bias", Elements(width)),
        ("head.weight", Matrix([vocabulary, width])),
    ]
}

fn layer_tensors(
    layer: usize,
    width: usize,
    hidden: usize,
    ranks: &Ranks,
) -> Vec<(&'static str, Expected)> {
    use Expected::{Elements, Matrix};
    let vectors = [
        "ln1.weight",
        "ln1.bias",
        "ln2.weight",
        "ln2.bias",
        "att.ln_x.weight",
        "att.ln_x.bias",
        "att.x_r",
        "att.x_w",
        "att.x_k",
        "att.x_v",
        "att.x_a",
        "att.x_g",
        "att.w0",
        "att.a0",
        "att.k_k",
        "att.k_a",
        "ffn.x_k",
    ];
    let squares = [
        "att.receptance.weight",
        "att.key.weight",
        "att.value.weight",
        "att.output.weight",
    ];
    let mut tensors: Vec<_> = vectors.map(|name| (name, Elements(width))).into();
    tensors.extend(squares.map(|name| (name, Matrix([width, width]))));
    tensors.extend([
        ("att.r_k", Matrix([width / HEAD_SIZE, HEAD_SIZE])),
        ("att.w1", Matrix([ranks.decay, width])),
        ("att.w2", Matrix([width, ranks.decay])),
        ("att.a1", Matrix([ranks.rate, width])),
        ("att.a2", Matrix([width, ranks.rate])),
        ("att.g1", Matrix([ranks.gate, width])),
        ("att.g2", Matrix([width, ranks.gate])),
        ("ffn.key.weight", Matrix([hidden, width])),
        ("ffn.value.weight", Matrix([width, hidden])),
    ]);
    // Layer 0 has no value residual: its v0, v1 and v2 are never read.
    if layer > 0 {
        tensors.extend([
            ("att.v0", Elements(width)),
            ("att.v1", Matrix([ranks.value, width])),
            ("att.v2", Matrix([width, ranks.value])),
        ]);
    }
    tensors
}

/// The two dimensions of a matrix.
fn matrix(file: &SafeTensors<'_>, name: &str) -> Result<[usize; 2], String> {
    let shape = shape(file, name)?;
    <[usize; 2]>::try_from(shape).map_err(|shape| {
        format!(
            "tensor {name} is {}, but must be a matrix",
            dimensions(&shape)
        )
    })
}

/// The number of rows of a matrix: the row length of the matrix that is applied next.
fn rows(file: &SafeTensors<'_>, name: &str) -> Result<usize, String> {
    let [rows, columns] = matrix(file, name)?;
    if rows > 0 && rows.is_multiple_of(ROW_STEP) {
        Ok(rows)
    } else {
        Err(format!(
            "tensor {name} is {rows} x {columns}, but web-rwkv needs a number of rows that is a multiple of {ROW_STEP}"
        ))
    }
}

fn expect(file: &SafeTensors<'_>, name: &str, expected: &Expected) -> Result<(), String> {
    let found = shape(file, name)?;
    let (valid, wanted) = match expected {
        Expected::Elements(count) => (
            found.iter().product::<usize>() == *count,
            format!("{count} elements"),
        ),
        Expected::Matrix(sizes) => (found == sizes, dimensions(sizes)),
    };
    if valid {
        return Ok(());
    }
    let hint = match expected {
        Expected::Matrix([rows, columns]) if found == [*columns, *rows] => {
            " (LoRA matrices are transposed in web-rwkv's layout)"
        }
        _ => "",
    };
    let found = dimensions(&found);
    Err(format!(
        "tensor {name} is {found}, but must be {wanted}{hint}"
    ))
}

fn shape(file: &SafeTensors<'_>, name: &str) -> Result<Vec<usize>, String> {
    let tensor = file
        .tensor(name)
        .map_err(|_| format!("tensor {name} is missing"))?;
    match tensor.dtype() {
        Dtype::F16 => Ok(tensor.shape().to_vec()),
        other => Err(format!(
            "tensor {name} is {other}, but web-rwkv reads F16 only"
        )),
    }
}

fn dimensions(shape: &[usize]) -> String {
    if shape.is_empty() {
        return "a single number".into();
    }
    let sizes: Vec<_> = shape.iter().map(usize::to_string).collect();
    sizes.join(" x ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use safetensors::tensor::TensorView;

    use super::*;

    type Tensors = BTreeMap<String, (Dtype, Vec<usize>)>;

    const RANKS: Ranks = Ranks {
        decay: 8,
        rate: 12,
        gate: 16,
        value: 4,
    };

    /// Names, types and shapes of a valid model: 2 layers, width 64, hidden 256, vocabulary 10.
    fn right() -> Tensors {
        let mut tensors = Tensors::new();
        let mut add = |name: String, expected: Expected| {
            let shape = match expected {
                Expected::Elements(count) => vec![1, 1, count],
                Expected::Matrix(sizes) => sizes.to_vec(),
            };
            tensors.insert(name, (Dtype::F16, shape));
        };
        for (name, expected) in outer_tensors(10, 64) {
            add(name.into(), expected);
        }
        for layer in 0..2 {
            for (name, expected) in layer_tensors(layer, 64, 256, &RANKS) {
                add(format!("blocks.{layer}.{name}"), expected);
            }
        }
        tensors
    }

    fn checked(tensors: &Tensors) -> Result<Sizes, String> {
        let zeros = vec![0_u8; 1 << 20];
        let views = tensors.iter().map(|(name, (dtype, shape))| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let view = TensorView::new(*dtype, shape.clone(), &zeros[..bytes]);
            (name, view.expect("bytes for this shape"))
        });
        let file = safetensors::serialize(views, None).expect("serializable tensors");
        check(&SafeTensors::deserialize(&file).expect("a file just written"))
    }

    fn sentence(change: impl FnOnce(&mut Tensors)) -> String {
        let mut tensors = right();
        change(&mut tensors);
        checked(&tensors).expect_err("a refused model")
    }

    #[test]
    fn a_right_model_tells_its_sizes() {
        let sizes = Sizes {
            layers: 2,
            width: 64,
            vocabulary: 10,
        };
        assert_eq!(checked(&right()), Ok(sizes));
    }

    #[test]
    fn each_missing_tensor_is_named() {
        for name in right().into_keys() {
            let text = sentence(|tensors| {
                tensors.remove(&name);
            });
            assert!(text.contains(&name), "without {name}: {text}");
        }
    }

    #[test]
    fn each_misshapen_tensor_is_refused() {
        for name in right().into_keys() {
            sentence(|tensors| tensors.get_mut(&name).unwrap().1.push(3));
        }
    }

    #[test]
    fn other_types_are_named() {
        let text = sentence(|tensors| tensors.get_mut("head.weight").unwrap().0 = Dtype::BF16);
        assert_eq!(
            text,
            "tensor head.weight is BF16, but web-rwkv reads F16 only"
        );
    }

    #[test]
    fn untransposed_lora_matrices_are_recognized() {
        let text = sentence(|tensors| {
            tensors.get_mut("blocks.1.att.w2").unwrap().1 = vec![8, 64];
        });
        assert!(
            text.starts_with("tensor blocks.1.att.w2 is 8 x 64, but must be 64 x 8"),
            "{text}"
        );
        assert!(text.contains("transposed"), "{text}");
    }

    #[test]
    fn row_counts_the_shaders_get_wrong_are_refused() {
        for pair in ["att.w", "att.g"] {
            for rank in [0, 1, 6] {
                let text = sentence(|tensors| {
                    for layer in 0..2 {
                        let block = format!("blocks.{layer}");
                        tensors.get_mut(&format!("{block}.{pair}1")).unwrap().1 = vec![rank, 64];
                        tensors.get_mut(&format!("{block}.{pair}2")).unwrap().1 = vec![64, rank];
                    }
                });
                assert!(text.contains("multiple of 4"), "{pair}1, {rank}: {text}");
            }
        }
    }

    #[test]
    fn older_versions_are_recognized() {
        let text = sentence(|tensors| {
            tensors.remove("blocks.0.att.r_k");
            tensors.insert("blocks.0.att.time_decay".into(), (Dtype::F16, vec![64]));
        });
        assert!(text.contains("RWKV-6 or older"), "{text}");
    }

    #[test]
    fn a_single_layer_is_refused() {
        let text = sentence(|tensors| tensors.retain(|name, _| !name.starts_with("blocks.1.")));
        assert!(text.contains("one layer"), "{text}");
    }

    #[test]
    fn a_name_without_a_layer_number_is_refused() {
        for name in ["blocks.x.att.w1", "blocks.", "blocks.99999999999.att.w1"] {
            let text = sentence(|tensors| {
                tensors.insert(name.into(), (Dtype::F16, vec![1]));
            });
            assert!(text.contains(name), "{text}");
        }
    }
}
