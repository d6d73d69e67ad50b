"""Is the model still accurate enough, on this backend and in this precision?"""


def test_accuracy(case, accuracy):
    accuracy.check()
