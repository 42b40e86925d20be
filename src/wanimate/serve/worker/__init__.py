"""Workers: processes that take jobs from the queue and do them. Any number, on any machines."""
