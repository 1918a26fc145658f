"""Every operation as plain data: what to send, where it may go, what repeating it does, and how to read the answer.

Written once; the sync and the asyncio client only carry them out. No I/O and no clock in here.
"""
