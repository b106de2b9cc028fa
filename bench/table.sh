# Figures and their table. A part of dev/bench, not a program.

# Notes one figure. Of a unit that ends in /s more is better, of any other less.
figure() { # SYSTEM NAME UNIT VALUE
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >> "$figures"
  say "  $2: $4 $3"
}

# Notes figures of one line of `load`: pairs of a name and the word whose value it is, such as p99.
figures_of_line() { # SYSTEM LINE [NAME WORD]...
  local system=$1 line=$2 failed note='' unit value
  failed=$(word_of "$line" failed)
  [ "${failed:-0}" = 0 ] || note=" ($failed failed)"
  shift 2
  while [ $# -gt 0 ]; do
    case $2 in rate) unit='1/s' ;; total) unit=s ;; *) unit=ms ;; esac
    value=$(word_of "$line" "$2")
    [ -z "$value" ] || figure "$system" "$1" "$unit" "$value$note"
    shift 2
  done
}

# The number behind `word=`, without its unit.
word_of() { # LINE WORD
  sed -nE "s/.*(^| )$2=([0-9.]+).*/\2/p" <<<"$1"
}

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'; }

machine() {
  local memory
  memory=$(awk '/^MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo)
  echo "$(nproc) CPUs, $memory, Linux $(uname -r)"
}

# Every line stands for itself wherever it is copied to: it names versions, backends, machine and date. The ratio says how many times
# better Holdfast is: above 1 it wins, whichever way the unit goes.
print_table() {
  local where
  where="Holdfast $(holdfast_version)"
  if [[ " ${systems[*]} " == *" stock "* ]]; then where+="; stock $(stock_version)"; fi
  [ "$scale" = 1 ] || where+="; NO FIGURE: 1/$scale of the work"
  awk -F'\t' -v where="$where" -v machine="$(machine)" -v date="$(date -u +%Y-%m-%d)" '
    { key = $2 FS $3; if (!(key in seen)) { seen[key] = 1; order[++n] = key }; value[$1, key] = $4 }
    END {
      print "| figure | unit | Holdfast | stock | ratio | versions and backends | machine | date |"
      print "|---|---|---:|---:|---:|---|---|---|"
      for (i = 1; i <= n; i++) {
        key = order[i]; split(key, part, FS)
        ours = value["holdfast", key]; theirs = value["stock", key]; ratio = ""
        if (ours + 0 > 0 && theirs + 0 > 0) ratio = sprintf("%.2f", part[2] ~ /\/s$/ ? ours / theirs : theirs / ours)
        printf "| %s | %s | %s | %s | %s | %s | %s | %s |\n", part[1], part[2], ours, theirs, ratio, where, machine, date
      }
    }' "$figures"
}
