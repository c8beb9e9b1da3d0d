"""A greeter as any gRPC server: its messages come from greeter.proto, as a descriptor set that publishing makes."""

import os
import signal
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HERE = os.path.dirname(os.path.abspath(__file__))


def messages():
    """The classes of greeter.proto; a project with generated code imports them instead."""
    pool = descriptor_pool.DescriptorPool()
    with open(os.path.join(HERE, "interface.pb"), "rb") as file:
        for one in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
            pool.Add(one)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"hello.{name}"))
        for name in ("Who", "Greeting")
    ]


Who, Greeting = messages()


def greet(who, context):
    if not who.name:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a name is needed")
    return Greeting(greeting=f"Hello, {who.name}{'!' if who.mood else '.'}", letters=len(who.name))


def count(who, context):
    for number in range(who.times):
        if not context.is_active():
            return
        yield Greeting(greeting=f"Hello {number + 1}, {who.name}", letters=len(who.name))
        time.sleep(0.01)


def together(everybody, context):
    names = [who.name for who in everybody]
    return Greeting(greeting=f"Hello, {' and '.join(names)}.", letters=sum(map(len, names)))


def handler(make, function):
    return make(function, request_deserializer=Who.FromString, response_serializer=Greeting.SerializeToString)


METHODS = {
    "Greet": handler(grpc.unary_unary_rpc_method_handler, greet),
    "Count": handler(grpc.unary_stream_rpc_method_handler, count),
    "Together": handler(grpc.stream_unary_rpc_method_handler, together),
}

if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("hello.Greeter", METHODS),))
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    signal.sigwait({signal.SIGTERM})
