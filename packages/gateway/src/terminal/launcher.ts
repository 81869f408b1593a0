/**
 * Tells whether the process that launched the command still runs. `npm run` starts a shell, which starts the command. If npm is
 * killed, both would stay behind and a server would keep its port.
 */

/** A process, from the operating system. */
export interface ProcessInfo {
  readonly name: string
  readonly parent: number
}

/** Reads `/proc/PID/stat` of Linux; the name of a process may contain anything. */
export const describedBy = (stat: string): ProcessInfo | undefined => {
  const [, name, parent] = /^\d+ \((.*)\) \S (\d+) /s.exec(stat) ?? []
  return name === undefined ? undefined : { name, parent: Number(parent) }
}

/**
 * Whether a package manager's script runs this command in the foreground. A script that sends it to the background, or that starts
 * something else, ends before the command.
 */
export const isForeground = (script: string | undefined): boolean =>
  script !== undefined && /\bfloodgate\b/.test(script) && !/(?<![&>])&(?![&>])|\b(nohup|setsid|disown)\b/.test(script)

const shells = /^(sh|dash|bash|ash|busybox|zsh|ksh)$/

/**
 * Watches the parent of this process and, if the parent is a shell, the process that started the shell. The returned function tells
 * whether one of them has ended. On systems without `/proc`, `describe` returns `undefined`; there the command usually replaces the
 * shell.
 */
export const watch = (parent: () => number, describe: (pid: number) => ProcessInfo | undefined): (() => boolean) => {
  const first = parent()
  const shell = describe(first)
  const above = shell !== undefined && shells.test(shell.name) ? shell.parent : undefined
  return () => parent() !== first || (above !== undefined && describe(first)?.parent !== above)
}
