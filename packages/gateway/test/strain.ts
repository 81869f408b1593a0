/** Preloaded into a process: reports its peak memory and its longest turn of the event loop to the parent. */

let last = process.threadCpuUsage()
let longest = 0

// In processor time, because on a busy machine a turn may take several times as long.
setInterval(() => {
  const { system, user } = process.threadCpuUsage(last)
  last = process.threadCpuUsage()
  longest = Math.max(longest, (system + user) / 1e3)
}, 5).unref()

process.on("message", () => {
  process.send!({ rss: process.resourceUsage().maxRSS / 1e3, turn: longest })
  longest = 0
})
process.channel?.unref()
