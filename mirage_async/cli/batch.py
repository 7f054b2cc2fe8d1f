"""later"""
def batch() -> int:
    return 0
__all__ = ["batch"]
