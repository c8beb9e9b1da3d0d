"""gRPC both ways: programs that are gRPC servers, and doors through which gRPC clients call any service.

`descriptors.py` reads what a `.proto` became and describes its methods, `compiling.py` makes it (the publisher's side),
`channel.py` speaks with a program, `messages.py` maps the JSON of services to messages, `door.py` and `purse_door.py`
serve clients. The extra `grpc` brings what this needs; without it each of them refuses with that word.
"""
