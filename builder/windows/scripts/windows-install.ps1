# Installers of all kinds, told apart by their names.
function Invoke-GiltProgramOf($parameters) {
    $results = [Collections.ArrayList]::new()
    $restart = $false
    foreach ($file in @($parameters.files)) {
        $script:giltStep = [IO.Path]::GetFileName($file)
        Write-Host ('installing ' + $script:giltStep)
        $code = 0
        $arguments = @($parameters.arguments)
        switch ([IO.Path]::GetExtension($file).ToLowerInvariant()) {
            '.msi' {
                $log = $file + '.log'
                $line = @('/i', ('"{0}"' -f $file), '/qn', '/norestart', '/l*v', ('"{0}"' -f $log)) + $arguments
                $code = (Start-Process -FilePath 'msiexec.exe' -ArgumentList $line -Wait -PassThru -WindowStyle Hidden).ExitCode
                if (@($parameters.validExitCodes) -notcontains $code) { Get-Content -LiteralPath $log -Tail 60 -ErrorAction SilentlyContinue | Out-Host }
            }
            { $_ -in '.msu', '.cab' } {
                & dism.exe /Online /Add-Package ('/PackagePath:' + $file) /Quiet /NoRestart | Out-Host
                $code = $LASTEXITCODE
            }
            { $_ -in '.appx', '.msix', '.appxbundle', '.msixbundle' } {
                # For all users: an app of one user makes Sysprep fail.
                $appx = @{ Online = $true; PackagePath = $file; SkipLicense = $true }
                if (@($parameters.dependencies).Count) { $appx.DependencyPackagePath = @($parameters.dependencies) }
                $done = Add-AppxProvisionedPackage @appx
                if ($done.RestartNeeded) { $code = 3010 }
            }
            default {
                if ($arguments.Count) { $process = Start-Process -FilePath $file -ArgumentList $arguments -Wait -PassThru -WindowStyle Hidden }
                else { $process = Start-Process -FilePath $file -Wait -PassThru -WindowStyle Hidden }
                $code = $process.ExitCode
            }
        }
        if ($code -in 3010, 1641) { $restart = $true }
        [void]$results.Add(@{ file = $script:giltStep; exitCode = [long]$code })
        if (@($parameters.validExitCodes) -notcontains $code) { break }
    }
    @{ results = $results.ToArray(); rebootRequired = $restart }
}
