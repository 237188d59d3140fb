"""The pytest plugin: the fixture fails wrong gradients, --gradcheck lists what was checked, --gradcheck-shrink writes files."""

pytest_plugins = ["pytester"]

TESTS = """
import fdl, jax, jax.numpy as jnp

@jax.custom_vjp
def wrong(x):
    return x**2

wrong.defvjp(lambda x: (x**2, x), lambda x, d: (d * x,))

def test_right(gradcheck):
    assert gradcheck(lambda x: jnp.sin(x), jnp.linspace(-1.0, 1.0, 5), modes="quick").ok

def test_layer(gradcheck):
    assert gradcheck(fdl.tanh(), jnp.ones((2, 3)), modes="quick").ok

def test_wrong(gradcheck):
    gradcheck(wrong, jnp.linspace(0.5, 1.0, 5), reference=lambda x: x**2, modes="quick")
"""


def test_the_fixture_and_its_table(pytester):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("--gradcheck", "-p", "no:randomly", "-p", "no:xdist")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        ["*GradientError: wrong: *", "*gradients checked*", "right * comparisons *", "wrong * comparisons *"]
    )
    assert "gradients checked" not in pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:xdist").stdout.str()


def test_a_file_for_each_wrong_gradient(pytester):
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("--gradcheck-shrink", "cases", "-p", "no:randomly", "-p", "no:xdist")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*shrunk from float64[[]5] to *: cases/test_*_test_wrong_1.py"])
    (path,) = (pytester.path / "cases").iterdir()
    pytester.syspathinsert()
    again = pytester.runpytest_inprocess(str(path), "-p", "no:randomly", "-p", "no:xdist")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["*GradientError: wrong: *", "*dx is half of what it should be*"])
