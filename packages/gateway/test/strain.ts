/** Preloaded into a process: tells its parent the most memory that it had, and its longest turn of the event loop. */

let last = process.threadCpuUsage()
let longest = 0

// In processor time: on a busy machine a turn takes several times as long without anybody's fault.
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
