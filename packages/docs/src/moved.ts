/** Pages that were merged into others. Their old addresses lead to the new ones. Pure. */
import { posix } from "node:path"

/** The new page of each old one, with the section that took its place if it is not the whole page. */
export const moved: Readonly<Record<string, string>> = {
  "incident.md": "why.md",
  "how-it-works.md": "why.md#a-queue-and-a-bucket",
  "when-not.md": "why.md#when-not-to-use-it",
  "migrating.md": "why.md#replacing-what-you-have",
  "install.md": "clients.md#install",
  "defaults.md": "failures.md#defaults",
  "guarantees.md": "evidence.md#what-is-guaranteed",
  "compatibility.md": "figures/compatibility.md",
  "upgrading.md": "changelog.md#from-04-to-05",
  "guides/streaming.md": "guides/effect-app.md#streaming",
  "guides/one-prompt.md": "guides/how-many-agents.md#when-one-prompt-starts-hundreds",
  "guides/subscriptions.md": "dollars.md#subscriptions",
  "guides/your-own-server.md": "guides/choosing-limits.md#your-own-server",
  "guides/reading-the-lab.md": "guides/testing-your-fan-out.md#reading-the-lab",
  "retry.md": "why.md#how-much-jitter",
  "redis.md": "guides/many-processes.md",
  "stores.md": "guides/many-processes.md#another-database",
  "lab.md": "figures/lab.md",
  "weather.md": "figures/weather.md",
  "agents-at-work.md": "figures/agents-at-work.md",
  "benchmarks.md": "figures/benchmarks.md",
  "runtimes.md": "figures/runtimes.md",
  "planted-bugs.md": "figures/planted-bugs.md",
  "guides/effect-ai.md": "clients.md#effectai",
  "guides/sdk-middleware.md": "clients.md#anthropics-sdk"
}

/** A page that leads to another one, and keeps the anchor of the address. */
export const redirectOf = (from: string, to: string): string => {
  const [page = "", anchor] = to.split("#") as [string?, string?]
  const address = posix.relative(posix.dirname(from), page).replace(/\.md$/, "")
  const hash = anchor === undefined ? "" : `#${anchor}`
  return [
    "---",
    "search: false",
    "head:",
    `  - [script, {}, ${JSON.stringify(`location.replace(${JSON.stringify(address)} + (location.hash || ${JSON.stringify(hash)}))`)}]`,
    "---",
    "# This page has moved",
    "",
    `It is now a part of [${page.replace(/\.md$/, "")}](${posix.relative(posix.dirname(from), page)}${hash}).`,
    ""
  ].join("\n")
}
