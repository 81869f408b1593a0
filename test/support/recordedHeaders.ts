/**
 * The headers that name whose a call is, as clients sent them on 2 December 2026: a lead that starts two sub-agents, of which the second
 * starts a third. Identifiers are shortened.
 */

interface RecordedLineage {
  readonly session: string
  readonly subAgent: string | undefined
  readonly parent: string | undefined
}

export interface RecordedCall {
  readonly headers: Readonly<Record<string, string>>
  readonly lineage: RecordedLineage | undefined
}

export interface RecordedClient {
  readonly client: string
  readonly calls: ReadonlyArray<RecordedCall>
}

const claudeSession = "0172795d-e576-4dec-a7f4-76b97d5e1397"
const claudeCode = {
  "user-agent": "claude-cli/2.1.332 (external, cli)",
  "x-app": "cli",
  "x-claude-code-session-id": claudeSession
}

const codexSession = "01a23617-9bf1-74f1-b639-99247fb1cd8f"
const codex = {
  originator: "codex_exec",
  "session-id": codexSession,
  "thread-id": codexSession,
  "x-client-request-id": codexSession,
  "x-codex-window-id": `${codexSession}:0`
}
const codexThread = (thread: string, parent: string) => ({
  ...codex,
  "thread-id": thread,
  "x-client-request-id": thread,
  "x-codex-window-id": `${thread}:0`,
  "x-codex-parent-thread-id": parent,
  "x-openai-subagent": "collab_spawn"
})

const opencodeSession = (own: string) => ({
  "user-agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0.23 runtime/bun/1.3.14",
  "x-session-affinity": own,
  "x-session-id": own
})

const first = (session: string): RecordedLineage => ({ session, subAgent: undefined, parent: undefined })

export const recordedClients: ReadonlyArray<RecordedClient> = [
  {
    client: "Claude Code 2.1.332 and the Agent SDK 0.3.333",
    calls: [
      { headers: claudeCode, lineage: first(claudeSession) },
      {
        headers: { ...claudeCode, "x-claude-code-agent-id": "a0da02a4785c821d6" },
        lineage: { session: claudeSession, subAgent: "a0da02a4785c821d6", parent: undefined }
      },
      {
        headers: {
          ...claudeCode,
          "x-claude-code-agent-id": "a029782695987921c",
          "x-claude-code-parent-agent-id": "a0da02a4785c821d6"
        },
        lineage: { session: claudeSession, subAgent: "a029782695987921c", parent: "a0da02a4785c821d6" }
      }
    ]
  },
  {
    client: "Codex 0.171.0",
    calls: [
      { headers: codex, lineage: first(codexSession) },
      {
        headers: codexThread("01a23617-9c8a-7ba0-97ae-39e35108b7f4", codexSession),
        lineage: { session: codexSession, subAgent: "01a23617-9c8a-7ba0-97ae-39e35108b7f4", parent: undefined }
      },
      {
        headers: codexThread("01a23617-9cf1-7332-baa4-d488fde62676", "01a23617-9c8a-7ba0-97ae-39e35108b7f4"),
        lineage: {
          session: codexSession,
          subAgent: "01a23617-9cf1-7332-baa4-d488fde62676",
          parent: "01a23617-9c8a-7ba0-97ae-39e35108b7f4"
        }
      }
    ]
  },
  {
    client: "opencode 1.18.33",
    calls: [
      { headers: opencodeSession("ses_dc9e8024cffe"), lineage: first("ses_dc9e8024cffe") },
      {
        headers: { ...opencodeSession("ses_dc9e7fb90ffe"), "x-parent-session-id": "ses_dc9e8024cffe" },
        lineage: { session: "ses_dc9e8024cffe", subAgent: "ses_dc9e7fb90ffe", parent: undefined }
      }
    ]
  },
  {
    client: "opencode 1.18.33 with Responses",
    calls: [
      {
        headers: { ...opencodeSession("ses_dc9e5aedfffe"), originator: "opencode", "session-id": "ses_dc9e5aedfffe" },
        lineage: first("ses_dc9e5aedfffe")
      },
      {
        headers: {
          ...opencodeSession("ses_dc9e5a2e1ffe"),
          originator: "opencode",
          "session-id": "ses_dc9e5a2e1ffe",
          "x-parent-session-id": "ses_dc9e5aedfffe"
        },
        lineage: { session: "ses_dc9e5aedfffe", subAgent: "ses_dc9e5a2e1ffe", parent: undefined }
      }
    ]
  },
  {
    client: "pi 0.73.1 with Responses",
    calls: [
      {
        headers: { "user-agent": "OpenAI/JS 6.26.0", session_id: "01a23619-ed93-74fa-8aa7-a7af3f24772e" },
        lineage: first("01a23619-ed93-74fa-8aa7-a7af3f24772e")
      }
    ]
  },
  {
    client: "pi 0.73.1 with Messages or Chat Completions, Qwen Code 0.24.4 and Gemini CLI 0.61.0",
    calls: [
      { headers: { "user-agent": "OpenAI/JS 6.26.0" }, lineage: undefined },
      { headers: { "user-agent": "QwenCode/0.24.4 (linux; x64)" }, lineage: undefined },
      {
        headers: {
          "user-agent": "GeminiCLI-tui/0.61.0/gemini-2.5-pro (linux; x64; terminal)",
          "x-gemini-api-privileged-user-id": "1163a3a6-3771-4828-ad61-1bc03257c472"
        },
        lineage: undefined
      }
    ]
  }
]
