"""The gradient prover: is a backward pass, ours or anybody's, equal to the derivative of what it claims to differentiate?

    report = fdl.check.gradients(op, params, x)             a function or an Op, at some arguments
    fdl.check.assert_gradients(op, params, x)               the same, as an exception
    report = fdl.check.layer(model, x)                      a whole Layer, leaf by leaf
    report = fdl.check.mutants(op, params, x)               faults planted in a backward: would a test notice?

| file           | what it answers                                                                    |
|----------------|------------------------------------------------------------------------------------|
| gradients.py   | what is asked, and is it something that can be checked                              |
| layer.py       | the same for a Layer: parameters, input, both ways through its backward             |
| trial.py       | at which points and in which modes reference and candidate are compared             |
| judge.py       | what is an outcome held against, in float64 and in the arguments' precision         |
| subject.py     | what is called: arguments taken apart, values and gradients, vmap, scan, checkpoint |
| evaluate.py    | how it is called: in which precision, compiled or not                               |
| interpreter.py | a jaxpr evaluated equation by equation                                              |
| rounding.py    | how large a rounding error may be, entry by entry                                   |
| compare.py     | is an entry right, and what does a wrong array look like                            |
| numerical.py   | what central differences can say where there is no reference                        |
| ledger.py      | what all comparisons of an array add up to                                          |
| paths.py       | what each intermediate value of a reference contributes to its gradient             |
| terms.py       | which term of a wrong gradient is missing or wrong                                  |
| mutants.py     | faults planted in a backward, and which of them a test kills                        |
| plugin.py      | the fixture and the option for pytest                                               |
| report.py      | what is told about it                                                               |
"""

from fdl.check.gradients import GradientError, assert_gradients, gradients
from fdl.check.layer import layer
from fdl.check.mutants import Mutation, mutants
from fdl.check.report import Failure, Report

__all__ = ["Failure", "GradientError", "Mutation", "Report", "assert_gradients", "gradients", "layer", "mutants"]
