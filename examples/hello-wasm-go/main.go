// Roman numerals as JSON lines: one line in, one line out, by the rules of programs with several methods.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type call struct {
	ID     int    `json:"id"`
	Method string `json:"method"`
	Input  struct {
		Number  int    `json:"number"`
		Numeral string `json:"numeral"`
	} `json:"input"`
}

var steps = []struct {
	value int
	text  string
}{
	{1000, "M"}, {900, "CM"}, {500, "D"}, {400, "CD"}, {100, "C"}, {90, "XC"}, {50, "L"}, {40, "XL"},
	{10, "X"}, {9, "IX"}, {5, "V"}, {4, "IV"}, {1, "I"},
}

func write(number int) string {
	var text strings.Builder
	for _, step := range steps {
		for ; number >= step.value; number -= step.value {
			text.WriteString(step.text)
		}
	}
	return text.String()
}

func read(numeral string) int {
	number, rest := 0, strings.ToUpper(numeral)
	for _, step := range steps {
		for strings.HasPrefix(rest, step.text) {
			number += step.value
			rest = rest[len(step.text):]
		}
	}
	// Whatever would be written otherwise is no numeral.
	if rest != "" || write(number) != strings.ToUpper(numeral) {
		return 0
	}
	return number
}

func main() {
	lines, say := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var asked call
		if lines.Decode(&asked) != nil {
			return
		}
		answer := map[string]any{"id": asked.ID}
		if number := asked.Input.Number; asked.Method == "write" && number > 0 && number < 4000 {
			answer["output"] = map[string]any{"numeral": write(number)}
		} else if number := read(asked.Input.Numeral); asked.Method == "read" && number > 0 {
			answer["output"] = map[string]any{"number": number}
		} else {
			answer["error"] = fmt.Sprintf("%s takes numbers from 1 to 3999", asked.Method)
		}
		say.Encode(answer)
	}
}
