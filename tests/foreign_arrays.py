"""Arrays of other libraries, as far as tests need them."""


class OnlyDLPack:
    """An array of a library that shares nothing with NumPy but the exchange protocol."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()
