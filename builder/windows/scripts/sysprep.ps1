# Sysprep runs as a task of the built-in administrator: as SYSTEM it breaks the desktop of what is deployed.
function Get-GiltTail([string]$path, [int]$count) {
    if (-not (Test-Path -LiteralPath $path)) { return '' }
    $stream = [IO.FileStream]::new($path, [IO.FileMode]::Open, [IO.FileAccess]::Read, ([IO.FileShare]::ReadWrite -bor [IO.FileShare]::Delete))
    try {
        [void]$stream.Seek([Math]::Max([long]0, $stream.Length - $count), [IO.SeekOrigin]::Begin)
        $buffer = New-Object byte[] $count
        $got = $stream.Read($buffer, 0, $count)
        [Text.Encoding]::UTF8.GetString($buffer, 0, $got)
    } finally { $stream.Dispose() }
}
function Invoke-GiltVerb($request) {
    $folder = Join-Path $env:SystemRoot 'System32\Sysprep'
    $tag = Join-Path $folder 'Sysprep_succeeded.tag'
    $panther = Join-Path $folder 'Panther'
    $task = 'gilt-sysprep'
    if ($request.action -eq 'start') {
        $script:giltStep = 'prepare'
        if (Get-Process -Name sysprep -ErrorAction SilentlyContinue) { throw 'sysprep runs already' }
        $arguments = '/generalize /' + $(if ($request.mode -eq 'audit') { 'audit' } else { 'oobe' }) + ' /quit /quiet'
        if ($request.vm) { $arguments += ' /mode:vm' }
        if ($request.unattend) {
            $file = Join-Path $folder 'gilt-unattend.xml'
            [IO.File]::WriteAllText($file, [string]$request.unattend, [Text.UTF8Encoding]::new($false))
            $arguments += ' /unattend:' + $file
        }
        if (Test-Path -LiteralPath $tag) { Remove-Item -LiteralPath $tag -Force }
        # Each run truncates its logs.
        if (Test-Path -LiteralPath $panther) {
            $kept = Join-Path $giltRoot ('sysprep-' + [DateTime]::UtcNow.ToString('yyyyMMddHHmmss'))
            Copy-Item -LiteralPath $panther -Destination $kept -Recurse -Force
        }
        # Winre.wim back onto this volume, or the image has none.
        $script:giltStep = 'winre'
        $before = $ErrorActionPreference
        $ErrorActionPreference = 'Continue'
        & reagentc.exe /disable 2>&1 | Out-Null
        $ErrorActionPreference = $before
        $script:giltStep = 'start'
        Register-GiltTask $task ('/d /c "{0} {1}"' -f (Join-Path $folder 'Sysprep.exe'), $arguments) $request.account $request.password
        Start-ScheduledTask -TaskName $task
        return @{ started = $true }
    }
    $script:giltStep = 'watch'
    $state = Get-ScheduledTask -TaskName $task -ErrorAction SilentlyContinue
    $exit = $null
    if ($state) { $exit = [long](Get-ScheduledTaskInfo -TaskName $task).LastTaskResult }
    @{
        tag = (Test-Path -LiteralPath $tag)
        running = ([bool](Get-Process -Name sysprep -ErrorAction SilentlyContinue) -or ($state -and ($state.State -in 'Running', 'Queued')))
        imageState = [string](Get-GiltValue 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State' 'ImageState')
        exitCode = $exit
        errors = Get-GiltTail (Join-Path $panther 'setuperr.log') 16384
        actions = Get-GiltTail (Join-Path $panther 'setupact.log') 4096
    }
}
