/** The requests of an agent. Each prompt builds on the answers before it. Pure. */
import type { Params } from "floodgate/LlmProvider"
import { clean, unwrapped } from "@floodgate/gateway/internal/text"
import { type Chunk, textOf } from "./split.ts"

/** The calls of an agent, in order. The first contains the documents, the others the answers to earlier ones. */
export const steps = ["read", "extract", "draft", "check", "finish"] as const

/** One of the calls of an agent. */
export type StepName = (typeof steps)[number]

/** The task of all agents, and the model. */
export interface Task {
  readonly prompt: string
  readonly model: string
  readonly maxTokens: number
}

/** Answers so far, by step. */
export type Answers = { readonly [S in StepName]?: string }

const system = (task: Task, part: number, parts: number): string =>
  [
    "You are one of several agents that work on the same task, each on its own part of the documents.",
    `Yours is part ${part} of ${parts}. Say only what your part supports, and name the document that supports it.`,
    `The task of all agents together:\n\n${task.prompt}`
  ].join("\n")

const section = (title: string, text: string | undefined): string => `<${title}>\n${text ?? ""}\n</${title}>`

const ask = (step: StepName, chunk: Chunk, answers: Answers): string => {
  switch (step) {
    case "read":
      return `${textOf(chunk)}\n\nRead these documents. Note everything that bears on the task, with the document it is in.`
    case "extract":
      return `${section("notes", answers.read)}\n\nFrom your notes, list the facts that the task needs: one a line, each with its document. Drop what is said twice.`
    case "draft":
      return `${section("notes", answers.read)}\n\n${section("facts", answers.extract)}\n\nWrite a draft of the answer for your part.`
    case "check":
      return `${section("facts", answers.extract)}\n\n${section("draft", answers.draft)}\n\nCheck the draft against the facts. List what is wrong, unsupported or missing.`
    case "finish":
      return `${section("draft", answers.draft)}\n\n${section("review", answers.check)}\n\nWrite the final text for your part: the draft with everything from the review put right.`
  }
}

/** The request of one call of an agent. */
export const params = (
  task: Task,
  step: StepName,
  at: { readonly part: number; readonly parts: number; readonly chunk: Chunk },
  answers: Answers
): Params => ({
  model: task.model,
  max_tokens: task.maxTokens,
  system: system(task, at.part, at.parts),
  messages: [{ role: "user", content: ask(step, at.chunk, answers) }]
})

/** The name of the orchestrator among the agents. */
export const orchestrator = "orchestrator"

/** The final text of an agent. */
export interface AgentText {
  readonly agent: string
  readonly text: string
}

/** The request with which the orchestrator merges the texts of the agents. */
export const mergeParams = (task: Task, parts: ReadonlyArray<AgentText>): Params => ({
  model: task.model,
  max_tokens: task.maxTokens,
  system: `You merge the work of several agents, each of which read its own part of the documents, into one text.\nThe task:\n\n${task.prompt}`,
  messages: [
    {
      role: "user",
      content: `${parts.map(({ agent, text }) => `<part agent="${agent}">\n${text}\n</part>`).join("\n\n")}\n\nWrite the answer to the task from these parts: no repetition, contradictions named.`
    }
  ]
})

const heading = "# Summary"

/** Whether a text begins like a summary. */
export const isSummary = (text: string): boolean => text.startsWith(`${heading}\n\n> `)

/** The text of `summary.md`: what is missing, the merged text and every part, without control characters. */
export const summary = (
  task: Task,
  merged: string | undefined,
  parts: ReadonlyArray<AgentText>,
  missing: ReadonlyArray<{ readonly agent: string; readonly documents: string; readonly reason: string }>
): string => {
  const lines = [heading, "", `> ${task.prompt.trim().replaceAll("\n", "\n> ")}`, ""]
  if (missing.length > 0) {
    lines.push("**Incomplete.** These parts failed:", "")
    for (const { agent, documents, reason } of missing) {
      lines.push(`- ${agent} (${documents}): ${unwrapped(reason)}`)
    }
    lines.push("")
  }
  lines.push(merged?.trim() ?? "_Not merged._", "", "# Parts", "")
  for (const { agent, text } of parts) lines.push(`## ${agent}`, "", text.trim(), "")
  return clean(lines.join("\n"))
}
