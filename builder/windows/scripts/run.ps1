function Invoke-GiltVerb($request) {
    $script:giltStep = 'prepare'
    if ([string]$request.executionPolicy -notmatch '^[A-Za-z]+$') { throw 'no such execution policy' }
    $log = Join-Path $giltHere 'output.log'
    $done = Join-Path $giltHere 'exit.txt'
    $utf8 = [Text.UTF8Encoding]::new($false)
    $task = @{
        kind = $request.kind; edition = $request.edition; executionPolicy = $request.executionPolicy
        arguments = @($request.arguments); environment = $request.environment
    }
    [IO.File]::WriteAllText((Join-Path $giltHere 'task.json'), (ConvertTo-Json -InputObject $task -Depth 8), $utf8)
    if ($null -ne $request.parameters) {
        [IO.File]::WriteAllText((Join-Path $giltHere 'parameters.json'), (ConvertTo-Json -InputObject $request.parameters -Depth 8), $utf8)
    }
    # Redirected by cmd.exe: PowerShell would make errors of what programs say on stderr.
    $line = '/d /c "powershell.exe -NoLogo -NoProfile -NonInteractive -ExecutionPolicy {0} -OutputFormat Text -File {1} >{2} 2>&1"' -f
        $request.executionPolicy, (Join-Path $giltHere 'task.ps1'), $log
    $script:giltStep = 'start'
    $name = 'gilt-' + (Split-Path -Path $giltHere -Leaf)
    $process = $null
    if ($request.as -eq 'user') {
        $process = Start-Process -FilePath (Join-Path $env:SystemRoot 'System32\cmd.exe') -ArgumentList $line -WindowStyle Hidden -PassThru
        [void]$process.Handle
    } else {
        if ($request.as -eq 'elevated') { Register-GiltTask $name $line $request.account $request.password }
        else { Register-GiltTask $name $line '' '' }
        Start-ScheduledTask -TaskName $name
    }
    $script:giltStep = 'wait'
    $until = [DateTime]::UtcNow.AddSeconds([double]$request.timeoutSeconds)
    $begun = [DateTime]::UtcNow
    $out = [Console]::OpenStandardOutput()
    $buffer = New-Object byte[] 65536
    $reader = $null
    $over = $false
    $timedOut = $false
    $died = $false
    $dead = 0
    while ($true) {
        if (-not $reader -and (Test-Path -LiteralPath $log)) {
            $reader = [IO.FileStream]::new($log, [IO.FileMode]::Open, [IO.FileAccess]::Read, ([IO.FileShare]::ReadWrite -bor [IO.FileShare]::Delete))
        }
        # Asked before the last read: what is written before the end is read after it.
        if (Test-Path -LiteralPath $done) { $over = $true }
        if ($reader) {
            while (($count = $reader.Read($buffer, 0, $buffer.Length)) -gt 0) { $out.Write($buffer, 0, $count) }
            $out.Flush()
        }
        if ($over) { break }
        if ($process) { $alive = -not $process.HasExited }
        else { $alive = (Get-ScheduledTask -TaskName $name).State -in 'Running', 'Queued' }
        # A task takes a moment to start, and a file to appear.
        if ($alive) { $dead = 0 } elseif (([DateTime]::UtcNow - $begun).TotalSeconds -gt 15) { $dead++ }
        if ($dead -gt 10) { $died = $true; break }
        if ([DateTime]::UtcNow -gt $until) { $timedOut = $true; break }
        Start-Sleep -Milliseconds 200
    }
    if ($reader) { $reader.Dispose() }
    $script:giltStep = 'end'
    if ($timedOut) {
        $marked = Join-Path $giltHere 'task.ps1'
        Get-CimInstance -ClassName Win32_Process | Where-Object { $_.CommandLine -and $_.CommandLine.Contains($marked) -and ($_.ProcessId -ne $PID) } |
            ForEach-Object { & taskkill.exe /T /F /PID $_.ProcessId 2>$null | Out-Null }
    }
    $code = -1
    if ($over) { $code = [int][IO.File]::ReadAllText($done) }
    elseif ($died -and $process) { $code = [int]$process.ExitCode }
    elseif ($died) { $code = [int](Get-ScheduledTaskInfo -TaskName $name).LastTaskResult }
    if (-not $process) {
        if ($timedOut) { Stop-ScheduledTask -TaskName $name -ErrorAction SilentlyContinue }
        Unregister-ScheduledTask -TaskName $name -Confirm:$false
    }
    [Console]::Out.WriteLine('')
    @{ exitCode = $code; timedOut = $timedOut; died = $died }
}
