// Answers POST /plain with a text in plain letters.
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
	"unicode"

	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

type input struct {
	Text string `json:"text"`
}

type output struct {
	Text    string `json:"text"`
	Changed int    `json:"changed"`
}

// plain takes letters apart, forgets the marks, and puts together what is left.
func plain(text string) (string, error) {
	marks := runes.Remove(runes.In(unicode.Mn))
	result, _, err := transform.String(transform.Chain(norm.NFKD, marks, norm.NFC), text)
	return result, err
}

func answer(writer http.ResponseWriter, request *http.Request) {
	var asked input
	if err := json.NewDecoder(request.Body).Decode(&asked); err != nil {
		http.Error(writer, err.Error(), http.StatusBadRequest)
		return
	}
	given := output{}
	for _, letter := range norm.NFC.String(asked.Text) {
		simple, err := plain(string(letter))
		if err != nil {
			http.Error(writer, err.Error(), http.StatusBadRequest)
			return
		}
		if simple != string(letter) {
			given.Changed++
		}
		given.Text += simple
	}
	writer.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(writer).Encode(given); err != nil {
		log.Print(err)
	}
}

func main() {
	http.HandleFunc("/plain", answer)
	http.HandleFunc("/healthz", func(writer http.ResponseWriter, _ *http.Request) { writer.WriteHeader(http.StatusOK) })
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
