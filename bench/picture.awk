# Draws latency over time from the lines (putload.awk) of two systems (first file Holdfast, second etcd) as an SVG: p50 and p99 of every second on a logarithmic
# axis, from 0.5 ms to 20 s, and a bar for every second with failed puts. -v title=... -v caption=...
BEGIN { width = 860; height = 420; left = 70; right = 20; top = 50; bottom = 70; low = log(0.5); high = log(20000)
  color[1] = "#1a7f37"; color[2] = "#b35900"; label[1] = "Holdfast"; label[2] = "etcd" }
FNR == 1 { system_++ }
{ t = v["t"]; if (t > last) last = t
  if (v["ended"] > 0) { p50[system_, t] = v["p50"]; p99[system_, t] = v["p99"] }
  failed[system_, t] = v["failed"]; sum[system_] += v["failed"] }
function x(t) { return left + (width - left - right) * t / (last > 0 ? last : 1) }
function y(ms) { if (ms < 0.5) ms = 0.5; return height - bottom - (height - top - bottom) * (log(ms) - low) / (high - low) }
function line_of(values, s, style,   t, path) {
  path = ""
  for (t = 1; t <= last; t++) if ((s, t) in values) path = path sprintf("%s%.1f,%.1f ", path == "" || !((s, t - 1) in values) ? "M" : "L", x(t), y(values[s, t]))
  printf "<path d=\"%s\" fill=\"none\" stroke=\"%s\" %s/>\n", path, color[s], style }
function text(px, py, size, anchor, words) { printf "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%d\" text-anchor=\"%s\">%s</text>\n", px, py, size, anchor, words }
END {
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" fill=\"#222\">\n", width, height
  printf "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", width, height
  printf "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"#f3e9dc\"/>\n", x(10), top, x(40) - x(10), height - top - bottom
  text(left, 24, 16, "start", title)
  text(x(10) + 6, top + 14, 11, "start", "the disk is slow")
  split("1 10 100 1000 10000", ticks, " "); split("1 ms,10 ms,100 ms,1 s,10 s", names, ",")
  for (i = 1; i <= 5; i++) { printf "<path d=\"M%d,%.1f H%d\" stroke=\"#ddd\"/>\n", left, y(ticks[i]), width - right; text(left - 8, y(ticks[i]) + 4, 11, "end", names[i]) }
  for (t = 0; t <= last; t += 10) text(x(t), height - bottom + 18, 11, "middle", t " s")
  for (s = 1; s <= 2; s++) {
    for (t = 1; t <= last; t++) if (failed[s, t] > 0)
      printf "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"6\" fill=\"%s\"/>\n", x(t - 1), top + 18 + 8 * s, x(1) - x(0), color[s]
    line_of(p99, s, "stroke-width=\"2\""); line_of(p50, s, "stroke-width=\"1\" stroke-dasharray=\"4 3\"")
    printf "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", left + 300 * (s - 1), height - 38, color[s]
    text(left + 18 + 300 * (s - 1), height - 28, 12, "start", label[s] ": p99 (line), p50 (dashed), " sum[s] + 0 " failed")
  }
  text(left, height - 8, 10, "start", caption)
  print "</svg>" }
