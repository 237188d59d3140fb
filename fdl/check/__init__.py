"""The gradient prover: is a backward pass, ours or anybody's, equal to the derivative of what it claims to differentiate?

    report = fdl.check.gradients(op, params, x)             a function or an Op, at some arguments
    fdl.check.assert_gradients(op, params, x)               the same, as an exception
    report = fdl.check.layer(model, x)                      a whole Layer, leaf by leaf
    report = fdl.check.mutants(op, params, x)               faults planted in a backward: would a test notice?
    origin = fdl.check.nan_origin(function, x)              the first equation that is not finite, forward or on the way back
    shrunk = fdl.check.shrink(op, params, x)                the smallest failing case, and a pytest file that shows it

| file           | what it answers                                                                    |
|----------------|------------------------------------------------------------------------------------|
| gradients.py   | what is asked, and is it something that can be checked                              |
| layer.py       | the same for a Layer: parameters, input, both ways through its backward             |
| trial.py       | at which points reference and candidate are compared, and the verdict               |
| modes.py       | in which modes: eager, jit, vmap over what, scan, shard_map, dtypes, twice, ...     |
| judge.py       | what is an outcome held against, in float64 and in the arguments' precision         |
| subject.py     | what is called: arguments taken apart, values and gradients                         |
| transformed.py | the same batched, inside scan, under checkpoint, differentiated once more           |
| evaluate.py    | how it is called: in which precision, compiled or not                               |
| interpreter.py | a jaxpr evaluated equation by equation                                              |
| adjoint.py     | is it the adjoint of forward mode, linear, and independent of what has no influence  |
| draws.py       | does it return the same for the same arguments, and draw the same in every precision |
| rounding.py    | how large a rounding error may be, entry by entry                                   |
| compare.py     | is an entry right, and what does a wrong array look like                            |
| aggregate.py   | what all entries say together, where rounding hides a fault in each                 |
| primal.py      | what JAX makes of a candidate's computation without its hand-written derivatives    |
| widened.py     | the same computation in float64 throughout, whatever it casts to                    |
| numerical.py   | what complex steps and central differences can say where there is no reference      |
| analytic.py    | the complex step, and whether a function is analytic                                |
| tangent.py     | forward mode as a witness, where the size of one leaf hides another                 |
| curvature.py   | second derivatives where there is no reference                                      |
| kinks.py       | where the slope jumps, between which values, and what was returned there, together   |
| conventions.py | the slopes of every output entry on its own, each with a convention of its own       |
| origin.py      | where a number stops being finite                                                   |
| places.py      | whose line an equation is: the caller's, and inside which library function          |
| ledger.py      | what all comparisons of an array add up to                                          |
| paths.py       | what each intermediate value of a reference contributes to its gradient             |
| terms.py       | which term of a wrong gradient is missing or wrong                                  |
| fits.py        | how well an explanation predicts an error, and how it is told                       |
| stock.py       | the mistakes that everybody makes: signs, factors, axes, cotangents                 |
| arrays.py      | what they do to an array                                                            |
| regions.py     | what the wrong entries have in common, where the others are right                   |
| backward.py    | the reference's own backward pass, and its values' names                            |
| replay.py      | a program replayed in NumPy with edits in it                                        |
| faults.py      | what one wrong operation of the backward pass makes of a gradient                   |
| residuals.py   | what a wrong residual makes of a gradient                                           |
| mutants.py     | faults planted in a backward, and which of them a test kills                        |
| shrink.py      | the smallest arguments at which a backward is wrong for the same reason             |
| testfile.py    | a failing check as a pytest file                                                    |
| plugin.py      | the fixture and the option for pytest                                               |
| report.py      | what is told about it                                                               |
"""

from fdl.check.gradients import GradientError, assert_gradients, gradients
from fdl.check.layer import layer
from fdl.check.mutants import Mutation, mutants
from fdl.check.origin import Origin, nan_origin
from fdl.check.report import Failure, Report
from fdl.check.shrink import Shrunk, shrink

__all__ = [
    "Failure",
    "GradientError",
    "Mutation",
    "Origin",
    "Report",
    "Shrunk",
    "assert_gradients",
    "gradients",
    "layer",
    "mutants",
    "nan_origin",
    "shrink",
]
