#!/bin/sh
# The words of standard input that occur most often, as many as the first argument says.
tr '[:upper:]' '[:lower:]' |
  tr -cs '[:alnum:]' '\n' |
  awk 'NF { seen[$0]++ } END { for (word in seen) print seen[word], word }' |
  sort -k1,1nr -k2 |
  head -n "${1:-10}"
