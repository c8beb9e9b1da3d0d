// A prepared interpreter: Starlark, a dialect of Python without clocks, chance or files, in a module of WebAssembly.
// Each function of program.star is a method; what it gets is a dictionary, what it returns is the output.
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"

	starlarkjson "go.starlark.net/lib/json"
	"go.starlark.net/lib/math"
	"go.starlark.net/starlark"
)

//go:embed program.star
var source string

type call struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Input  json.RawMessage `json:"input"`
}

func main() {
	known := starlark.StringDict{"json": starlarkjson.Module, "math": math.Module}
	thread := &starlark.Thread{Name: "program"}
	functions, err := starlark.ExecFile(thread, "program.star", source, known)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	functions.Freeze()
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 0, 64<<10), 8<<20)
	say := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked call
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		answer := map[string]any{"id": asked.ID}
		if output, err := run(functions, asked); err != nil {
			answer["error"] = err.Error()
		} else {
			answer["output"] = output
		}
		if err := say.Encode(answer); err != nil {
			os.Exit(1)
		}
	}
}

// run calls a method on a thread of its own, and carries values over as JSON.
func run(functions starlark.StringDict, asked call) (json.RawMessage, error) {
	thread := &starlark.Thread{Name: asked.Method}
	function, ok := functions[asked.Method].(*starlark.Function)
	if !ok {
		return nil, fmt.Errorf("program.star has no function %s", asked.Method)
	}
	input, err := starlark.Call(thread, starlarkjson.Module.Members["decode"], starlark.Tuple{starlark.String(asked.Input)}, nil)
	if err != nil {
		return nil, err
	}
	result, err := starlark.Call(thread, function, starlark.Tuple{input}, nil)
	if err != nil {
		return nil, err
	}
	text, err := starlark.Call(thread, starlarkjson.Module.Members["encode"], starlark.Tuple{result}, nil)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(string(text.(starlark.String))), nil
}
