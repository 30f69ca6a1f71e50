//! Operations whose result is not the same on every API.

use eplb_wgpu::testing::ShaderUnit;
use naga::{AddressSpace, BinaryOperator, Expression, Function, Handle};

use crate::lowered::lowered;

/// No division or remainder by a value as it comes from a buffer or from workgroup memory: WGSL says what
/// `x / 0` is, but the GL backend does not guard it. A divisor from the uniform buffer is allowed, because the
/// host checks those; any other is written `max(divisor, 1u)`, or is a constant.
pub fn check(unit: &ShaderUnit) -> Vec<String> {
    lowered(unit, |lowered| {
        let mut complaints = Vec::new();
        for (function, _, name) in lowered.functions() {
            for (handle, expression) in function.expressions.iter() {
                let Expression::Binary { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. } =
                    expression
                else {
                    continue;
                };
                if let Some(variable) = loaded_from(&lowered.written, function, *right) {
                    let line = function.expressions.get_span(handle).location(&unit.source).line_number;
                    complaints.push(format!(
                        "line {line}: {name} divides by a value of {variable}, which may be 0"
                    ));
                }
            }
        }
        complaints
    })
}

/// The name of the buffer or workgroup variable that a value is loaded from, if it is a plain load from one.
fn loaded_from(module: &naga::Module, function: &Function, value: Handle<Expression>) -> Option<String> {
    let mut at = match function.expressions[value] {
        Expression::Load { pointer } => pointer,
        // One component of a loaded vector, or a cast of a loaded value.
        Expression::AccessIndex { base, .. } | Expression::As { expr: base, .. } => {
            return loaded_from(module, function, base);
        }
        _ => return None,
    };
    loop {
        match function.expressions[at] {
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => at = base,
            Expression::GlobalVariable(variable) => {
                let variable = &module.global_variables[variable];
                let name = variable.name.clone().unwrap_or_default();
                // A lane has a copy of the uniform block.
                let is_copy = variable.space == AddressSpace::Private && name == "params";
                let checked = variable.space == AddressSpace::Uniform || is_copy;
                return (!checked).then_some(name);
            }
            _ => return None,
        }
    }
}

mod tests {
    use super::*;
    use crate::fixture::{fails, passes, with};

    #[test]
    fn no_shader_divides_by_a_value_that_may_be_zero() {
        crate::over_all(check);
    }

    #[test]
    fn a_division_by_a_loaded_value_is_found() {
        passes(check);
        fails(check, &with("id.x % params.experts", "id.x % loads[0]"), "a value of loads");
        fails(
            check,
            &with("params.seed +", "params.seed / partial[1] +"),
            "line 22: main divides by a value of partial",
        );
        fails(check, &with("params.seed +", "u32(params.bias / i32(loads[2])) +"), "a value of loads");
        let through_let =
            with("workgroupBarrier();", "let count = loads[3]; partial[0] /= count; workgroupBarrier();");
        fails(check, &through_let, "a value of loads");
        let mut own = with("params.seed +", "params.seed / own +");
        own.source = own.source.replacen("var<workgroup>", "var<private> own: u32; var<workgroup>", 1);
        fails(check, &own, "a value of own");
        assert_eq!(check(&with("params.seed +", "params.seed / max(loads[1], 1u) +")), Vec::<String>::new());
    }
}
