import * as World from "./world.ts"
import * as Storm from "./storm.ts"
const redis = await World.redis()
const [from = 1, to = 50, losses = "0"] = process.argv.slice(2)
let bad = 0
const t0 = performance.now()
for (let seed = Number(from); seed <= Number(to); seed++) {
  const plan = Storm.plan(seed, losses === "1")
  let o
  const t = performance.now()
  try { o = Storm.run(plan, redis) } catch (e: any) { console.log("THREW", seed, e.cause?.toString?.() ?? e, JSON.stringify(e.cause?.reasons?.map((r: any) => String(r.defect?.stack ?? r.error ?? r)))); bad++; continue }
  const limit = plan.limits.tokens as any
  const excess = World.excessOf(o.log, "tokens", limit)
  const over = excess / limit.burst
  const biggest = Math.max(0, plan.sizes[1] - limit.burst)
  const ok = o.stuck === 0 && excess <= biggest + 1e-6 && o.peak <= plan.concurrency && o.inFlight === 0
  if (!ok) { bad++; console.log("BAD", seed, { excess, over, biggest, stuck: o.stuck, inFlight: o.inFlight, peak: o.peak, c: plan.concurrency, done: o.done, refused: o.refused.length, ended: o.endedAt }, JSON.stringify(plan.sharing), JSON.stringify(plan.events), "net", plan.network.most, plan.network.lost) }
  if (process.env.LOG) for (const e of o.log) console.log('call', e.at.toFixed(1), e.process, e.agent, e.amounts.tokens)
  if (from === to) console.log(o.done, o.refused, o.requests, o.endedAt, performance.now() - t)
}
console.log("seeds", Number(to) - Number(from) + 1, "bad", bad, ((performance.now() - t0) / 1000).toFixed(1), "s")
