//! No float anywhere: plans are equal on every device because shaders compute with integers only.

use eplb_wgpu::testing::ShaderUnit;
use naga::{Expression, Literal, Scalar, ScalarKind, TypeInner};

use crate::lowered::lowered;

/// Walks types, constants, literals, casts and the type of every expression, then the text: the front end
/// evaluates `u32(1.5)` itself and leaves no trace of the float.
pub fn check(unit: &ShaderUnit) -> Vec<String> {
    let mut complaints = lowered(unit, |lowered| {
        let module = &lowered.written;
        let mut found = Vec::new();
        for (_, ty) in module.types.iter() {
            if is_float(&ty.inner) {
                found.push(format!(
                    "the type {} is a float",
                    ty.name.as_deref().unwrap_or("of an expression")
                ));
            }
        }
        for (_, expression) in module.global_expressions.iter() {
            found.extend(float_in(expression).map(|what| format!("a constant has {what}")));
        }
        for (function, info, name) in lowered.functions() {
            for (handle, expression) in function.expressions.iter() {
                let typed = is_float(info[handle].ty.inner_with(&module.types));
                let what = float_in(expression).or_else(|| typed.then(|| "a float expression".to_string()));
                found.extend(what.map(|what| format!("{name} has {what}")));
            }
        }
        found
    });
    complaints.extend(crate::text::float_tokens(&unit.source));
    complaints
}

fn is_float(inner: &TypeInner) -> bool {
    match inner {
        TypeInner::Matrix { .. } | TypeInner::CooperativeMatrix { .. } => true,
        other => other.scalar().is_some_and(is_float_scalar),
    }
}

fn is_float_scalar(scalar: Scalar) -> bool {
    is_float_kind(scalar.kind)
}

fn is_float_kind(kind: ScalarKind) -> bool {
    matches!(kind, ScalarKind::Float | ScalarKind::AbstractFloat)
}

fn float_in(expression: &Expression) -> Option<String> {
    match expression {
        Expression::Literal(
            literal @ (Literal::F16(_) | Literal::F32(_) | Literal::F64(_) | Literal::AbstractFloat(_)),
        ) => Some(format!("the literal {literal:?}")),
        Expression::As { kind, .. } if is_float_kind(*kind) => Some("a cast to a float".to_string()),
        _ => None,
    }
}

mod tests {
    use super::*;
    use crate::fixture::{passes, with};

    #[test]
    fn no_shader_has_a_float() {
        crate::over_all(check);
    }

    #[test]
    fn floats_are_found_wherever_they_hide() {
        passes(check);
        let hidden = [
            ("seed: u32 }", "seed: f32 }"),
            ("params.bias)", "f32(params.bias))"),
            ("max(count, 1u)", "u32(max(f32(count), 1.5))"),
            ("params.slots)", "u32(1.5))"),
            ("params.slots)", "u32(ceil(sqrt(2.0))))"),
            ("override WORKGROUP", "const half = 0.5; override WORKGROUP"),
            ("var<workgroup> partial", "var<private> m: mat2x2f; var<workgroup> partial"),
        ];
        for (from, to) in hidden {
            // Some faults are no longer a valid shader, which is a complaint of another check: look at floats.
            let complaints = check(&with(from, to));
            let floats = ["float", "literal", "is written"];
            let found = complaints.iter().any(|c| floats.iter().any(|word| c.contains(word)));
            assert!(found, "{to}: {complaints:?}");
        }
    }

    #[test]
    fn the_module_alone_shows_a_float_that_the_text_hides() {
        let unit = with("params.seed +", "pack2x16float(unpack2x16float(params.seed)) +");
        assert!(crate::text::float_tokens(&unit.source).is_empty());
        assert!(!check(&unit).is_empty(), "a value that is a float by inference passes");
    }
}
