# Lines of putload, `t= 1s ended= 1000 p50= 1.0ms p99= 2.0ms max= 3.0ms failed=0 waiting=3`: the numbers of one as v["t"], v["p99"] and so on. Given
# to awk before the program that uses them.
{ gsub(/= +/, "="); delete v; for (i = 1; i <= NF; i++) { split($i, part, "="); v[part[1]] = part[2] + 0 } }
