# Runs one script with its surroundings and writes its exit code, whole, as the last thing.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'
try { [Console]::OutputEncoding = [Text.UTF8Encoding]::new($false) } catch { $null = $_ }
$giltCode = 1
try {
    $giltPath = Join-Path $PSScriptRoot 'task.json'
    $giltTask = ConvertFrom-Json -InputObject ([IO.File]::ReadAllText($giltPath))
    Remove-Item -LiteralPath $giltPath -Force
    foreach ($giltEntry in $giltTask.environment.PSObject.Properties) {
        [Environment]::SetEnvironmentVariable($giltEntry.Name, [string]$giltEntry.Value, 'Process')
    }
    $giltArguments = @($giltTask.arguments)
    $giltScript = Join-Path $PSScriptRoot 'script.ps1'
    $global:LASTEXITCODE = 0
    if ($giltTask.kind -eq 'batch') {
        & $env:ComSpec /d /c (Join-Path $PSScriptRoot 'script.cmd') @giltArguments
    } elseif ($giltTask.edition -eq 'core') {
        & pwsh.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy $giltTask.executionPolicy -File $giltScript @giltArguments
    } else {
        & $giltScript @giltArguments
    }
    $giltCode = [int]$LASTEXITCODE
} catch {
    [Console]::Out.WriteLine(($_ | Out-String).TrimEnd())
    $giltCode = 1
}
[Console]::Out.Flush()
$giltFresh = Join-Path $PSScriptRoot 'exit.tmp'
[IO.File]::WriteAllText($giltFresh, [string]$giltCode)
[IO.File]::Move($giltFresh, (Join-Path $PSScriptRoot 'exit.txt'))
exit $giltCode
